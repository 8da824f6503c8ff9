-- Each live table is one record a row: the JSON text of the record that the program holds in memory.
-- What is asked for by anything but its key has a column of its own.
CREATE TABLE instances (id INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE hosts     (id INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE users     (id INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE requests  (id INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE outbox    (id INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE counters  (id VARCHAR(64) PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE settings  (id VARCHAR(64) PRIMARY KEY, record TEXT NOT NULL);
-- instances that are gone
CREATE TABLE history (id INTEGER PRIMARY KEY, name VARCHAR(63) NOT NULL, resource_id VARCHAR(128), record TEXT NOT NULL);
CREATE INDEX history_name ON history (name);
CREATE INDEX history_resource ON history (resource_id);
