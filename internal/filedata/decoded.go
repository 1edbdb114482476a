package filedata

import (
	"sync"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// decodedKey names the contents of a compressed extent that is committed: an
// address that is used again gets a newer generation. The running transaction may
// use its own addresses again, so what it wrote is not kept.
type decodedKey struct {
	at         ondisk.Bytenr
	generation ondisk.Generation
}

// decodedCache keeps the extents that were decoded last, so that reading a file
// in small steps decodes each extent once.
type decodedCache struct {
	mu   sync.Mutex
	next int
	keys [decodedSlots]decodedKey
	data [decodedSlots][]byte
}

const decodedSlots = 8

func (c *decodedCache) get(k decodedKey) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.keys {
		if c.keys[i] == k {
			return c.data[i]
		}
	}
	return nil
}

func (c *decodedCache) put(k decodedKey, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys[c.next], c.data[c.next] = k, b
	c.next = (c.next + 1) % decodedSlots
}
