-- Who owns each persistent disk, by the name of its file.
CREATE TABLE disks (id VARCHAR(128) PRIMARY KEY, record TEXT NOT NULL);
