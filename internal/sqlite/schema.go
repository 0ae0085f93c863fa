package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

const (
	applicationID = 0x48644761
	// schemaVersion is the user_version of a file that this program wrote.
	schemaVersion = 2
)

// steps bring a file from one version to the next; step 0 makes one. A new file
// goes through all of them, so that it is the same as one that was brought up.
// They are run in one transaction, for a new file before it becomes a WAL
// database: the file's first page names us as soon as there is one.
var steps = [schemaVersion]string{`
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
`, `
ALTER TABLE request ADD COLUMN caller TEXT NOT NULL DEFAULT '';
ALTER TABLE request ADD COLUMN key TEXT;
ALTER TABLE request ADD COLUMN accepted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE request ADD COLUMN delivery INTEGER NOT NULL DEFAULT 0;
ALTER TABLE request ADD COLUMN extra BLOB;
CREATE UNIQUE INDEX key ON request (caller, key) WHERE key IS NOT NULL;

ALTER TABLE execution ADD COLUMN caller TEXT;
ALTER TABLE execution ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE execution ADD COLUMN outcome INTEGER NOT NULL DEFAULT 0;
ALTER TABLE execution ADD COLUMN unanswered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE execution ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
ALTER TABLE execution ADD COLUMN answer_type TEXT NOT NULL DEFAULT '';
UPDATE execution SET
  size = (SELECT coalesce(length(body), 0) FROM request r WHERE r.id = execution.id),
  outcome = CASE WHEN state >= 3 THEN state ELSE 0 END,
  unanswered = coalesce(json_extract(tally, '$.unanswered'), 0);
CREATE INDEX stage ON execution (outcome);
CREATE INDEX mine  ON execution (caller, outcome) WHERE caller IS NOT NULL;
CREATE INDEX ended ON execution (ended) WHERE outcome <> 0;
CREATE INDEX maybe ON execution (id) WHERE unanswered > 0;

CREATE TABLE load (caller TEXT PRIMARY KEY, n INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO load SELECT '', count(*), sum(size) FROM execution WHERE outcome = 0 HAVING count(*) > 0;

ALTER TABLE execution ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
DROP INDEX ready;
CREATE INDEX ready ON execution (priority, turn, id) WHERE state = 0 AND parked = 0;
CREATE TABLE present (priority INTEGER PRIMARY KEY, turn INTEGER NOT NULL);
CREATE TABLE standing (caller TEXT, priority INTEGER, finish INTEGER NOT NULL, cost INTEGER NOT NULL,
  PRIMARY KEY (caller, priority)) WITHOUT ROWID;

CREATE TABLE issued (last INTEGER NOT NULL);
INSERT INTO issued VALUES (0);
`}

// prepare makes what the file must hold, or brings an older one up to date, and
// turns it into a WAL database.
func prepare(ctx context.Context, c *sql.Conn) error {
	var version, tables int
	if err := c.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > schemaVersion {
		return newer(version)
	}
	if version == 0 {
		if err := c.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
			return err
		}
		if tables != 0 {
			return ErrForeign
		}
	}
	if version < schemaVersion {
		if err := bringUp(ctx, c, version); err != nil {
			return err
		}
	}
	var mode string
	if err := c.QueryRowContext(ctx, "PRAGMA journal_mode=WAL").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("the file system can't hold a write-ahead log (journal mode %s)", mode)
	}
	return nil
}

// bringUp takes the steps from version on, all or none.
func bringUp(ctx context.Context, c *sql.Conn, version int) error {
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	_, err = tx.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id=%d; PRAGMA user_version=%d; %s",
		applicationID, schemaVersion, strings.Join(steps[version:], "")))
	if err != nil {
		return err
	}
	return tx.Commit()
}

func newer(version int) error {
	return fmt.Errorf("%w: it has version %d, this program knows up to %d", ErrNewer, version, schemaVersion)
}
