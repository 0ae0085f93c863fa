package sqlite

import (
	"context"
	"strconv"

	"github.com/headgate/headgate/internal/queue"
)

// NoteKey is the meta key of a note of an execution.
func NoteKey(note string, id int64) string { return note + strconv.FormatInt(id, 10) }

// EndedNotes returns up to n of the executions of which there is a note and that
// have ended, or are not there any more. They come in the order of their keys,
// as text; after is where to go on, 0 for the first. The notes of those that are
// open cost a look each, and no memory.
func (s *Store) EndedNotes(ctx context.Context, note string, after int64, n int) (ids []int64, err error) {
	if s.closed.Load() {
		return nil, queue.ErrClosed
	}
	from := note
	if after > 0 {
		from = NoteKey(note, after)
	}
	rows, err := s.read.QueryContext(ctx, `
		SELECT m.id FROM (SELECT key, CAST(substr(key, length(?1) + 1) AS INTEGER) AS id FROM meta
			WHERE key > ?2 AND key < ?1 || ':') AS m
		LEFT JOIN execution e ON e.id = m.id
		WHERE e.id IS NULL OR e.outcome != 0 ORDER BY m.key LIMIT ?3`, note, from, n)
	if err != nil {
		return nil, s.readError(ctx, err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, s.readError(ctx, err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return nil, s.readError(ctx, err)
	}
	return ids, s.readError(ctx, s.log.settled())
}
