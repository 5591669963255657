package origin

import (
	"container/list"

	"github.com/hinshun/ipcs/internal/seed"
)

// maxFrames bounds the bytes of frames that are kept, as they came, and maxBlocks those of frames that are kept decompressed.
const maxFrames, maxBlocks = 32 << 20, 16 << 20

type frameKey struct {
	seed  *opened
	frame int
}

// A frameCache keeps the frames that were used last. Origin.mu guards it.
type frameCache struct {
	frames map[frameKey]*list.Element
	order  *list.List // of frameEntry, that used last in front
	bytes  int
	most   int
}

type cachedFrame struct {
	data  []byte
	from  string      // the place
	table *seed.Table // by which it was decompressed; nil: it is not
	// around says that it lay around others, and nobody has wanted it yet.
	around bool
}

type frameEntry struct {
	frameKey
	cachedFrame
}

func newFrameCache(most int) frameCache {
	return frameCache{most: most, frames: map[frameKey]*list.Element{}, order: list.New()}
}

func (c *frameCache) get(key frameKey) (cachedFrame, bool) {
	e, ok := c.frames[key]
	if !ok {
		return cachedFrame{}, false
	}
	c.order.MoveToFront(e)
	return e.Value.(frameEntry).cachedFrame, true
}

func (c *frameCache) add(key frameKey, f cachedFrame) {
	if e, ok := c.frames[key]; ok {
		c.bytes -= len(c.order.Remove(e).(frameEntry).data)
		delete(c.frames, key)
	}
	if len(f.data) > c.most/2 {
		return
	}
	c.frames[key] = c.order.PushFront(frameEntry{key, f})
	for c.bytes += len(f.data); c.bytes > c.most; {
		e := c.order.Back()
		last := c.order.Remove(e).(frameEntry)
		delete(c.frames, last.frameKey)
		c.bytes -= len(last.data)
	}
}
