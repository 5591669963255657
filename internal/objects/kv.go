package objects

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// bucket names a table of the database.
type bucket string

const (
	bucketBlocks bucket = "blocks" // digest → bytes of a block that is no raw leaf
	bucketRefs   bucket = "refs"   // digest of a leaf, digest of the root of a file → leaf number
	bucketLoose  bucket = "loose"  // digest of a leaf whose loose copy goes at the next sync
	bucketPins   bucket = "pins"   // CID and name → nothing
	bucketState  bucket = "state"
)

var buckets = []bucket{bucketBlocks, bucketRefs, bucketLoose, bucketPins, bucketState}

// maxPending is how many bytes of blocks may wait in memory for a transaction.
const maxPending = 4 << 20

// entry is one change of the database: nil deletes.
type entry struct {
	bucket     bucket
	key, value []byte
}

// kv is the database. Each transaction costs an fsync, so concurrent writers share
// them: whoever commits takes along what others have added to the batch by then.
type kv struct {
	db *bolt.DB

	commit sync.Mutex // held during a transaction
	mu     sync.Mutex // guards what follows
	next   *batch     // gathers
	busy   *batch     // is being committed; nil if none
}

// batch is what goes into one transaction.
type batch struct {
	blocks  map[string][]byte // survive a failed transaction: nobody waits for them
	bytes   int
	entries []entry // go with a failed transaction: their writers are told
	done    bool
	err     error
}

func newBatch() *batch { return &batch{blocks: make(map[string][]byte)} }

func openKV(path string) (*kv, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, b := range buckets {
			if _, err := tx.CreateBucketIfNotExists([]byte(b)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return &kv{db: db, next: newBatch()}, nil
}

func (k *kv) close() error { return k.db.Close() }

// putBlock adds a block to the next batch. It commits first if that one is full, so that
// a disk that cannot take more is noticed here and not by memory running out.
func (k *kv) putBlock(digest string, data []byte) error {
	k.mu.Lock()
	full := k.next.bytes+len(data) > maxPending && k.next.bytes > 0
	k.mu.Unlock()
	if full {
		if err := k.flush(); err != nil {
			return err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next.add(digest, data)
	return nil
}

func (b *batch) add(digest string, data []byte) {
	if _, ok := b.blocks[digest]; !ok {
		b.blocks[digest] = append([]byte{}, data...) // never nil: a block may be empty
		b.bytes += len(data)
	}
}

// flush returns when everything added before, and these entries, are in the database.
func (k *kv) flush(entries ...entry) error {
	k.mu.Lock()
	b := k.next
	b.entries = append(b.entries, entries...)
	k.mu.Unlock()

	k.commit.Lock()
	defer k.commit.Unlock()
	k.mu.Lock()
	if b.done { // by another, while we waited
		k.mu.Unlock()
		return b.err
	}
	k.busy, k.next = b, newBatch()
	k.mu.Unlock()

	err := b.write(k.db)

	k.mu.Lock()
	defer k.mu.Unlock()
	b.done, b.err, k.busy = true, err, nil
	if err != nil {
		for digest, data := range b.blocks {
			k.next.add(digest, data)
		}
	}
	return err
}

func (b *batch) write(db *bolt.DB) error {
	if len(b.blocks) == 0 && len(b.entries) == 0 {
		return nil
	}
	err := db.Update(func(tx *bolt.Tx) error {
		blocks := tx.Bucket([]byte(bucketBlocks))
		for digest, data := range b.blocks {
			if err := blocks.Put([]byte(digest), data); err != nil {
				return err
			}
		}
		for _, e := range b.entries {
			if err := e.apply(tx.Bucket([]byte(e.bucket))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", db.Path(), err)
	}
	return nil
}

func (e entry) apply(b *bolt.Bucket) error {
	if e.value == nil {
		return b.Delete(e.key)
	}
	return b.Put(e.key, e.value)
}

// block returns a block that was put, or nil.
func (k *kv) block(digest string) ([]byte, error) {
	k.mu.Lock()
	data, ok := k.next.blocks[digest]
	if !ok && k.busy != nil {
		data, ok = k.busy.blocks[digest]
	}
	k.mu.Unlock()
	if ok {
		return data, nil
	}
	return k.get(bucketBlocks, digest)
}

// get returns a value of the database, or nil.
func (k *kv) get(b bucket, key string) ([]byte, error) {
	var value []byte
	err := k.db.View(func(tx *bolt.Tx) error {
		value = bytes.Clone(tx.Bucket([]byte(b)).Get([]byte(key)))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", k.db.Path(), err)
	}
	return value, nil
}

// scanAfter calls fn with each pair whose key comes after last, or with all for nil, until it
// returns false. The slices are valid only during the call.
func (k *kv) scanAfter(b bucket, last []byte, fn func(key, value []byte) bool) error {
	err := k.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket([]byte(b)).Cursor()
		key, value := c.First()
		if last != nil {
			if key, value = c.Seek(last); bytes.Equal(key, last) {
				key, value = c.Next()
			}
		}
		for ; key != nil && fn(key, value); key, value = c.Next() {
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", k.db.Path(), err)
	}
	return nil
}

// scan calls fn with each pair whose key begins with prefix, until it returns false.
// The slices are valid only during the call.
func (k *kv) scan(b bucket, prefix []byte, fn func(key, value []byte) bool) error {
	err := k.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket([]byte(b)).Cursor()
		for key, value := c.Seek(prefix); bytes.HasPrefix(key, prefix) && key != nil; key, value = c.Next() {
			if !fn(key, value) {
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", k.db.Path(), err)
	}
	return nil
}
