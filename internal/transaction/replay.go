package transaction

import (
	"context"
	"errors"

	"github.com/gobtrfs/gobtrfs/internal/chunk"
	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

var errInMemory = errors.New("volume is changed in memory only")

// BeginReplay takes the write lock and reserves nothing: who replays a log must first say what the log occupies (Hold,
// TakeData), for no tree knows of that and it would be handed out; and then call Reserve.
func (m *Manager) BeginReplay(ctx context.Context) (*Tx, error) {
	m.mu.Lock()
	if m.err != nil {
		defer m.mu.Unlock()
		return nil, m.err
	}
	m.start(ctx)
	t := m.opt.Now()
	return &Tx{m: m, acts: m.ext.Acts(), now: ondisk.Timespec{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())}}, nil
}

// Reserve makes sure that there is room for more changes. It never commits.
func (tx *Tx) Reserve(ctx context.Context, need Need) error {
	if tx.m.opt.InMemory {
		return nil // no chunk can be made; if there is too little room, that will show
	}
	for {
		short := tx.m.short(need)
		if short == 0 {
			return nil
		}
		if err := tx.m.grow(ctx, short); err != nil {
			if errors.Is(err, chunk.ErrNoRoom) {
				return ErrNoSpace
			}
			return err
		}
	}
}

// DropLog says that the log was replayed, so that the next commit does away with it even if nothing else changes.
func (tx *Tx) DropLog() {
	tx.dirt = true
	tx.m.forced = true
}
