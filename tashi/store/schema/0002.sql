-- The runs of the control plane on this database, each with its first and its last commit. They tell this database from an older
-- copy, and from a copy that another control plane went on with.
CREATE TABLE runs (first_commit INTEGER PRIMARY KEY, last_commit INTEGER NOT NULL, id VARCHAR(64) NOT NULL);
