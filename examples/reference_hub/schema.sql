-- The memory store. WAL, so that readers and the one writer do not wait for each other.
PRAGMA journal_mode = WAL;

CREATE TABLE personas (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    interests TEXT NOT NULL
);

CREATE TABLE packages (
    name TEXT PRIMARY KEY,
    version TEXT NOT NULL,
    summary TEXT NOT NULL
);

CREATE TABLE memories (
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL,
    vector BLOB NOT NULL,                       -- 1536 float32: the exact vector; the index holds it in 8 bits
    -- Columns that came with later versions of the store stand at the end, as ALTER TABLE leaves them.
    persona_id TEXT NOT NULL REFERENCES personas(id),
    package TEXT NOT NULL,
    module TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,                         -- module | class | function | method | note
    importance REAL NOT NULL,
    module_id INTEGER REFERENCES memories(id),  -- the memory of the module that this one stands in, if it has one
    last_accessed REAL NOT NULL DEFAULT 0       -- Unix time of the last answer that quoted it; 0 is never
);

CREATE INDEX memories_package ON memories(package);

CREATE TABLE tags (
    memory_id INTEGER NOT NULL REFERENCES memories(id),
    tag TEXT NOT NULL,
    PRIMARY KEY (memory_id, tag)
) WITHOUT ROWID;
