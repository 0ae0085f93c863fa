package contender

import (
	"context"
	"math"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
)

// redisRate is go-redis/redis_rate with a real Redis, which all processes share:
// Allow with the limit before each attempt, as its README shows, and RetryAfter
// of its result to wait when it does not allow one. The copied loop does the
// retries.
var redisRate = Contender{
	ID: "redis-rate", Title: "redis_rate", Module: "github.com/go-redis/redis_rate/v10", Knows: TheLimit, Redis: true,
	About: "Allow at the told limit, in a Redis that all processes share, with the retries of the copied loop",
	New: func(s Setup) (Client, error) {
		limit := redis_rate.Limit{Rate: max(1, int(math.Round(s.Told.Rate))), Burst: int(s.Told.Burst), Period: time.Second}
		if s.Told.IsWindow() {
			limit = redis_rate.Limit{Rate: s.Told.Max, Burst: s.Told.Max, Period: s.Told.Window}
		}
		db := redis.NewClient(&redis.Options{Addr: s.Redis})
		limiter := redis_rate.NewLimiter(db)
		allow := func(ctx context.Context) error {
			for {
				res, err := limiter.Allow(ctx, s.Key, limit)
				if err != nil || res.Allowed > 0 {
					return err
				}
				if err := sleep(ctx, res.RetryAfter); err != nil {
					return err
				}
			}
		}
		return limited{retries{base: s.Base, before: allow}, db}, nil
	},
}

type limited struct {
	retries
	db *redis.Client
}

func (l limited) Close() error { return l.db.Close() }
