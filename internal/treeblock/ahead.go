package treeblock

import "context"

// readsAhead is how many blocks are read ahead at one time.
const readsAhead = 16

// Prefetch begins to read the blocks that are not in memory. It does not wait and reports nothing: whoever then
// reads a block meets the read under way, or does it again and gets the error. Blocks beyond what can be read at
// once are left out.
func (s *Store) Prefetch(ctx context.Context, ps []Promise) {
	for _, p := range ps {
		sh := s.shard(p.Bytenr)
		sh.mu.Lock()
		if b, _ := sh.get(p.Bytenr); b != nil || sh.reads[p.Bytenr] != nil {
			sh.mu.Unlock()
			continue
		}
		select {
		case s.ahead <- struct{}{}:
		default:
			sh.mu.Unlock()
			return
		}
		f := &flight{done: make(chan struct{}), want: p}
		sh.reads[p.Bytenr] = f
		sh.mu.Unlock()
		s.wg.Add(1)
		go func() {
			s.fly(context.WithoutCancel(ctx), sh, f)
			<-s.ahead
			s.wg.Done()
		}()
	}
}

// Close waits until no read ahead uses the backend any more. No Prefetch may be begun meanwhile.
func (s *Store) Close() { s.wg.Wait() }
