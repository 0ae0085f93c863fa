package sqlite

import (
	"context"
	"strings"

	"github.com/headgate/headgate/internal/queue"
)

// MetaKeys returns the keys under which SetMeta has stored something and that
// begin with prefix.
func (s *Store) MetaKeys(ctx context.Context, prefix string) (keys []string, err error) {
	if s.closed.Load() {
		return nil, queue.ErrClosed
	}
	rows, err := s.read.QueryContext(ctx, "SELECT key FROM meta WHERE key >= ? ORDER BY key", prefix)
	if err != nil {
		return nil, s.readError(ctx, err)
	}
	defer rows.Close()
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return nil, s.readError(ctx, err)
		}
		if !strings.HasPrefix(key, prefix) {
			break
		}
		keys = append(keys, key)
	}
	return keys, s.readError(ctx, rows.Err())
}
