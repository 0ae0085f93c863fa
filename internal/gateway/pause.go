package gateway

import (
	"context"
	"time"
)

// metaPaused is the meta key of an org's pause: who began it, and is there as long
// as it lasts. It outlives the process: whoever paused an org does not expect that
// a restart sends what was held back.
const metaPaused = "paused"

// pause holds everything of an org, or lets it go on.
func (o *org) pause(pause bool, by string) *problem {
	o.pausing.Lock()
	defer o.pausing.Unlock()
	var stored []byte // none: it is forgotten
	if pause {
		o.limiter.Pause()
		stored = []byte(by)
	} else {
		o.limiter.Resume()
	}
	o.log.Info("paused or resumed", "paused", pause, "by", by)
	// Not with the request's context: what was done is to be recorded.
	if err := o.store.SetMeta(context.Background(), metaPaused, stored); err != nil {
		o.log.Warn("a pause or its end is not recorded: a restart will not know of it", "err", err)
		return diskFull.problem("it is done, but a restart would not know of it: " + storeTrouble(err)).retryAfter(5 * time.Second)
	}
	return nil
}

// restorePause goes on with the pause of an earlier process.
func (o *org) restorePause(ctx context.Context) error {
	by, err := o.store.Meta(ctx, metaPaused)
	if err == nil && by != nil {
		o.limiter.Pause()
		o.log.Warn("still paused, until somebody resumes it", "by", string(by))
	}
	return err
}
