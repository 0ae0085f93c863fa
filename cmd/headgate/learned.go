package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/headgate/headgate"
	"github.com/headgate/headgate/internal/bulk"
)

// learnedFile is the form of a file that keeps what was learned of limits, for
// runs with other journals.
type learnedFile struct {
	Kind    string           `json:"kind"` // learnedKind
	Version int              `json:"version"`
	Limits  []headgate.State `json:"limits"`
}

const (
	learnedKind    = "headgate learned limits"
	learnedVersion = 1
	learnedName    = "headgate.learned" // beside the journal
	learnedNone    = "none"             // the word for no file

	learnedMax = 16 << 20            // bytes
	learnedAge = 30 * 24 * time.Hour // what is older is dropped
)

// learnedPath returns which file keeps what is learned, "" for none.
func (r *bulkRun) learnedPath() string {
	switch f := r.flags; {
	case f.learned == learnedNone || f.learn == headgate.LearnOff:
		return ""
	case f.learned != "":
		return f.learned
	case f.emulator:
		return "" // it forgets everything as well
	case r.temporary:
		return "" // nothing stays of a run that was given no file
	}
	return filepath.Join(filepath.Dir(r.journal), learnedName)
}

// readLearned reads what was learned. A file that is none of ours, or of a later
// version, is an error that is no fs.ErrNotExist.
func readLearned(path string) ([]headgate.State, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, learnedMax+1))
	if err != nil {
		return nil, err
	}
	var l learnedFile
	switch err := json.Unmarshal(text, &l); {
	case len(text) > learnedMax:
		return nil, fmt.Errorf("it is larger than %d bytes", learnedMax)
	case l.Kind != learnedKind && err != nil:
		return nil, fmt.Errorf("it is not what headgate has learned: %w", err)
	case l.Kind != learnedKind:
		return nil, errors.New("it is not what headgate has learned")
	case l.Version != learnedVersion:
		return nil, fmt.Errorf("it has version %d, and this headgate reads %d", l.Version, learnedVersion)
	case err != nil:
		return nil, err
	}
	for _, s := range l.Limits {
		if s.Limit == "" || time.Until(s.At) > 24*time.Hour || time.Until(s.Gate) > learnedAge {
			return nil, fmt.Errorf("what it says of limit %q can't be", s.Limit)
		}
	}
	return l.Limits, nil
}

// loadLearned returns what other runs have learned. A file that can't be used is
// set aside: learning starts afresh.
func (r *bulkRun) loadLearned() []headgate.State {
	path := r.learnedPath()
	if path == "" {
		return nil
	}
	states, err := readLearned(path)
	switch {
	case err == nil || errors.Is(err, fs.ErrNotExist):
		return states
	case errors.As(err, new(*fs.PathError)): // it may not be read
		fmt.Fprintf(&r.console, "headgate: what was learned of the limits: %v; learning starts afresh\n", err)
		return nil
	}
	aside := path + ".aside"
	if moved := os.Rename(path, aside); moved != nil {
		fmt.Fprintf(&r.console, "headgate: what was learned of the limits can't be used: %s: %v; learning starts afresh, and is not kept: %v\n", path, err, moved)
		r.keepNothing = true
		return nil
	}
	fmt.Fprintf(&r.console, "headgate: what was learned of the limits can't be used: %s: %v; it is set aside as %s, and learning starts afresh\n", path, err, aside)
	return nil
}

// saveLearned keeps what is known of the limits, beside what the file says of
// others.
func (r *bulkRun) saveLearned() error {
	path := r.learnedPath()
	if path == "" || r.org == nil || r.keepNothing {
		return nil
	}
	states := r.org.Limiter.Snapshot()
	others, err := readLearned(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, s := range others {
		ours := slices.ContainsFunc(states, func(o headgate.State) bool { return sameBucket(o, s) })
		if !ours && time.Since(s.At) < learnedAge {
			states = append(states, s)
		}
	}
	text, err := json.MarshalIndent(learnedFile{learnedKind, learnedVersion, states}, "", "  ")
	if err != nil {
		return err
	}
	out, err := bulk.CreateOut(path)
	if err != nil {
		return err
	}
	defer out.Abort()
	if _, err := out.Write(append(text, '\n')); err != nil {
		return err
	}
	return out.Commit()
}

func sameBucket(a, b headgate.State) bool {
	return a.Limit == b.Limit && a.Match == b.Match && a.Org == b.Org && a.Client == b.Client && a.Token == b.Token && a.Path == b.Path
}

// keepLearning saves what is learned from time to time, and at the end, until stop
// is called.
func (r *bulkRun) keepLearning() (stop func()) {
	done, over := make(chan struct{}), make(chan struct{})
	save := func() {
		if err := r.saveLearned(); err != nil && !r.keepNothing {
			r.keepNothing = true
			fmt.Fprintf(&r.console, "headgate: what was learned of the limits is not kept: %v\n", err)
		}
	}
	go func() {
		defer close(over)
		tick := time.NewTicker(5 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				save()
			case <-done:
				save()
				return
			}
		}
	}()
	return func() {
		close(done)
		<-over
	}
}

// latest returns the states of both, of each bucket the later one.
func latest(a, b []headgate.State) []headgate.State {
	list := slices.Clone(a)
	for _, s := range b {
		i := slices.IndexFunc(list, func(o headgate.State) bool { return sameBucket(o, s) })
		switch {
		case i < 0:
			list = append(list, s)
		case s.At.After(list[i].At):
			list[i] = s
		}
	}
	return list
}
