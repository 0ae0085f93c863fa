package queuetest

import (
	"sync"
	"testing"

	"github.com/headgate/headgate/internal/queue"
)

func TestMemory(t *testing.T) {
	var mu sync.Mutex
	stores := map[string]*Memory{}
	Run(t, func(tb testing.TB, dir string) queue.Store {
		mu.Lock()
		defer mu.Unlock()
		if old := stores[dir]; old != nil {
			stores[dir] = old.Reopen()
		} else {
			stores[dir] = NewMemory()
		}
		return stores[dir]
	})
}
