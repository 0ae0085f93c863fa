package sqlite

import (
	"database/sql"
	"errors"
	"maps"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/queue"
)

// schema1 is the schema of version 1, as the program wrote it that had no other.
// Files of it are out there: it never changes.
const schema1 = `
CREATE TABLE request (
  id       INTEGER PRIMARY KEY,
  method   TEXT NOT NULL,
  path     TEXT NOT NULL,
  deadline INTEGER NOT NULL,
  body     BLOB
);
CREATE TABLE execution (
  id       INTEGER PRIMARY KEY,
  state    INTEGER NOT NULL,
  parked   INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  due      INTEGER NOT NULL,
  ended    INTEGER NOT NULL,
  status   INTEGER NOT NULL,
  remote   TEXT NOT NULL,
  reason   TEXT NOT NULL,
  tally    TEXT,
  answer   BLOB
);
CREATE INDEX ready  ON execution (priority, id) WHERE state = 0 AND parked = 0;
CREATE INDEX parked ON execution (due, priority) WHERE state = 0 AND parked = 1;
CREATE INDEX flight ON execution (id) WHERE state IN (1, 2);
CREATE TABLE total (state INTEGER PRIMARY KEY, n INTEGER NOT NULL);
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO total VALUES (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0);
`

// version1 writes a journal as version 1 of the schema had it, with what a run
// that was killed may have left.
func version1(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	must(t, err)
	defer func() { must(t, db.Close()) }()
	for _, statement := range []string{
		"PRAGMA application_id=1214531425; PRAGMA user_version=1;" + schema1,
		"PRAGMA journal_mode=WAL",
		`INSERT INTO request VALUES
			(1, 'POST', '/a', 0, NULL), (2, 'POST', '/b', 5, x'7b7d'), (3, 'POST', '/c', 0, x'00'),
			(4, 'POST', '/d', 0, x'010203'), (5, 'POST', '/e', 0, NULL), (6, 'POST', '/f', 0, x'0102')`,
		`INSERT INTO execution VALUES
			(1, 0, 0, 0, 0, 0, 0, '', '', NULL, NULL),
			(2, 0, 1, -1, 7, 0, 429, '', 'limit', '{"sent":1,"refused":1}', NULL),
			(3, 1, 0, 0, 0, 0, 0, '', '', '{"sent":1,"unanswered":1}', NULL),
			(4, 2, 0, 0, 0, 0, 0, '', '', '{"sent":1}', NULL),
			(5, 3, 0, 0, 0, 9, 200, '', '', '{"sent":1}', 'ok'),
			(6, 6, 0, 0, 0, 8, 0, '', 'sent, and no answer', '{"sent":1,"unanswered":1}', NULL)`,
		`UPDATE total SET n = CASE state WHEN 0 THEN 2 WHEN 1 THEN 1 WHEN 2 THEN 1 WHEN 3 THEN 1 WHEN 6 THEN 1 ELSE 0 END`,
		`INSERT INTO meta VALUES ('job', x'010203')`,
	} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatalf("%v\n%s", err, statement)
		}
	}
}

// A journal from before goes on: nothing is lost, and it can do what a new one
// can.
func TestMigrate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	version1(t, path)
	for range 2 { // the second time it is one of ours
		s := mustOpen(t, path, small)
		var got []queue.Execution
		for x, err := range s.Each(t.Context(), queue.Filter{}) {
			must(t, err)
			got = append(got, x)
		}
		post := func(id int64, path string, x queue.Execution) queue.Execution {
			x.ID, x.Method, x.Path, x.Revision = id, "POST", path, 1
			return x
		}
		maybe := queue.Tally{Sent: 1, Unanswered: 1}
		want := []queue.Execution{
			post(1, "/a", queue.Execution{}),
			post(2, "/b", queue.Execution{Body: []byte("{}"), Priority: -1, Deadline: time.Unix(0, 5).UTC(), Due: time.Unix(0, 7).UTC(),
				Status: 429, Reason: "limit", Tally: queue.Tally{Sent: 1, Refused: 1}}),
			post(3, "/c", queue.Execution{Body: []byte{0}, State: queue.Claimed, Tally: maybe}),
			post(4, "/d", queue.Execution{Body: []byte{1, 2, 3}, State: queue.Sent, Tally: queue.Tally{Sent: 1}}),
			post(5, "/e", queue.Execution{State: queue.Done, Status: 200, Answer: []byte("ok"), Ended: time.Unix(0, 9).UTC(),
				Tally: queue.Tally{Sent: 1}}),
			post(6, "/f", queue.Execution{Body: []byte{1, 2}, State: queue.Unknown, Reason: "sent, and no answer",
				Ended: time.Unix(0, 8).UTC(), Tally: maybe}),
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("stored:\n got %+v\nwant %+v", got, want)
		}
		load, err := s.Load(t.Context())
		if err != nil || !maps.Equal(load, map[string]queue.Load{"": {Rows: 4, Bytes: 6}}) {
			t.Errorf("Load: %v, %v", load, err)
		}
		if v, err := s.Meta(t.Context(), "job"); err != nil || len(v) != 3 {
			t.Errorf("Meta: %v, %v", v, err)
		}
		must(t, s.Close())
	}

	s := mustOpen(t, path, small)
	recovered, err := queue.Recover(t.Context(), s, queue.AtMostOnce, time.Unix(10, 0))
	if want := (queue.Recovered{Unknown: 2}); err != nil || recovered != want {
		t.Errorf("Recover: %+v, %v, want %+v", recovered, err, want)
	}
	var unknown []int64
	for x, err := range s.Each(t.Context(), queue.Filter{States: []queue.State{queue.Unknown}, Newest: true}) {
		must(t, err)
		unknown = append(unknown, x.ID)
	}
	if !reflect.DeepEqual(unknown, []int64{6, 4, 3}) {
		t.Errorf("unknown are %v", unknown)
	}
	if n, err := s.Prune(t.Context(), time.Unix(0, 9), 10); n != 1 || err != nil {
		t.Errorf("Prune: %d, %v, want one", n, err)
	}
	xs := []queue.Execution{{Caller: "a", Key: "k"}, {Caller: "a", Key: "k"}}
	must(t, s.Add(t.Context(), xs))
	if xs[0].ID != 7 || xs[1].ID != 7 || !xs[1].Existing {
		t.Errorf("added %+v", xs)
	}
}

// A new file is the same as one that was brought up.
func TestMigratedSchema(t *testing.T) {
	dir := t.TempDir()
	schemaOf := func(path string) (out []string) {
		s := mustOpen(t, path, small)
		rows, err := s.read.Query("SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema ORDER BY name")
		must(t, err)
		defer rows.Close()
		for rows.Next() {
			var line string
			must(t, rows.Scan(&line))
			out = append(out, line)
		}
		return append(out, pragma(t, s, "user_version"), pragma(t, s, "application_id"))
	}
	old := filepath.Join(dir, "old")
	version1(t, old)
	if was, is := schemaOf(old), schemaOf(filepath.Join(dir, "new")); !reflect.DeepEqual(was, is) {
		t.Errorf("brought up:\n%q\nnew:\n%q", was, is)
	}
}

func pragma(t *testing.T, s *Store, name string) (v string) {
	t.Helper()
	must(t, s.read.QueryRow("PRAGMA "+name).Scan(&v))
	return name + " " + v
}

// A migration that fails leaves the file as it was.
func TestMigrateFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	version1(t, path)
	run := func(statement string) {
		db, err := sql.Open("sqlite", "file:"+path)
		must(t, err)
		_, err = db.Exec(statement)
		must(t, err)
		must(t, db.Close())
	}
	run("CREATE TABLE issued (somebody)") // in the way of the last step
	if s, err := Open(path, small); err == nil {
		s.Close()
		t.Fatal("Open succeeded")
	} else if errors.Is(err, ErrForeign) || errors.Is(err, ErrNewer) {
		t.Errorf("Open: %v", err)
	}
	run("DROP TABLE issued")
	s := mustOpen(t, path, small)
	if c, err := s.Counts(t.Context()); err != nil || c.Total() != 6 {
		t.Errorf("holds %v, %v", c, err)
	}
}
