package share

import "math/bits"

// exactTrees is up to how many trees Cheapest tries all sets.
const exactTrees = 18

// Cheapest gives a set of trees that frees at least n bytes (data and metadata, each counted once), with as few trees as it can find; exact: there is
// no smaller one, and none of that size that frees more. It is nil if all trees together free less than n.
//
// To find the smallest set is as hard as such problems are. Of up to 18 trees all sets are tried. Of more, runs of neighbours in the list are added,
// those first that free the most for each tree: what several snapshots hold together, snapshots that were taken one after the other mostly do. So the
// list should be in the order in which snapshots were taken.
func (a *Account) Cheapest(n uint64) (trees []int, exact bool) {
	if n > a.all.Bytes() {
		return nil, true
	}
	if a.trees <= exactTrees {
		return a.smallest(n), true
	}
	s := a.greedy(n)
	if run := a.ShortestRun(n); len(run) < s.len() {
		s = newSet(a.trees, run...)
	}
	return s.members(newSet(a.trees)), false
}

// smallest tries all sets.
func (a *Account) smallest(n uint64) []int {
	frees := make([]uint64, 1<<a.trees) // by bitmap
	for _, h := range a.holdings {
		frees[h.by.word()] += h.Bytes()
	}
	for i := range a.trees { // sums over subsets, one tree after the other
		for s := range frees {
			if s>>i&1 != 0 {
				frees[s] += frees[s&^(1<<i)]
			}
		}
	}
	best := len(frees) - 1
	for s, f := range frees {
		k, least := bits.OnesCount(uint(s)), bits.OnesCount(uint(best))
		if f >= n && (k < least || k == least && f > frees[best]) {
			best = s
		}
	}
	return set{uint64(best)}.members(set{0})
}

// word is the bitmap of a set of no more than 64 trees.
func (s set) word() uint64 {
	if len(s) == 0 {
		return 0
	}
	return s[0]
}

// ShortestRun gives the shortest run of neighbours in the list that frees at least n bytes, and of those the one that frees the most; nil if all trees
// together free less.
func (a *Account) ShortestRun(n uint64) []int {
	none := newSet(a.trees)
	best := run{first: 0, last: a.trees - 1}
	found := false
	a.runs(none, a.trees, func(r run) {
		if r.frees >= n && (!found || r.cost < best.cost || r.cost == best.cost && r.frees > best.frees) {
			best, found = r, true
		}
	})
	var out []int
	for i := best.first; found && i <= best.last; i++ {
		out = append(out, i)
	}
	return out
}

// greedy adds runs until enough is freed, and then leaves out what is not needed.
func (a *Account) greedy(n uint64) set {
	chosen := newSet(a.trees)
	for freed := a.of(chosen).Bytes(); freed < n; freed = a.of(chosen).Bytes() {
		r := a.bestRun(chosen, n-freed)
		if r.cost == 0 { // lengths that lie, and add up to nothing
			r.last = a.trees - 1
		}
		for i := r.first; i <= r.last; i++ {
			chosen[i/64] |= 1 << (i % 64)
		}
	}
	a.prune(chosen, n)
	return chosen
}

// run is a run of neighbours in the list.
type run struct {
	first, last int
	cost        int    // trees in it that are not chosen yet
	frees       uint64 // bytes that choosing them too would free
}

// runs gives all runs of up to window neighbours that free anything more than chosen does.
func (a *Account) runs(chosen set, window int, fn func(r run)) {
	type part struct {
		last  int
		bytes uint64
	}
	from := make([][]part, a.trees) // by the first tree that is missing
	for i := range a.holdings {
		if first, last, ok := a.holdings[i].by.span(chosen); ok {
			from[first] = append(from[first], part{last, a.holdings[i].Bytes()})
		}
	}
	upTo := make([]uint64, a.trees) // bytes of what begins at first or later, by its last tree
	for first := a.trees - 1; first >= 0; first-- {
		for _, p := range from[first] {
			upTo[p.last] += p.bytes
		}
		r := run{first: first}
		if chosen.has(first) {
			continue
		}
		for r.last = first; r.last < min(a.trees, first+window); r.last++ {
			if chosen.has(r.last) {
				continue
			}
			r.cost++
			r.frees += upTo[r.last]
			if r.frees > 0 {
				fn(r)
			}
		}
	}
}

// fullRuns is up to how many trees all runs are looked at in each round; of more, long ones only when short ones free nothing.
const fullRuns = 1000

// bestRun is the run that frees the most for each tree; more than is missing is worth nothing.
func (a *Account) bestRun(chosen set, missing uint64) run {
	window := a.trees
	if window > fullRuns {
		window = fullRuns * fullRuns / window
	}
	for {
		var best run
		worth := 0.0
		a.runs(chosen, window, func(r run) {
			w := float64(min(r.frees, missing)) / float64(r.cost)
			if w > worth || w == worth && r.frees > best.frees {
				best, worth = r, w
			}
		})
		if worth > 0 || window >= a.trees {
			return best
		}
		window = a.trees
	}
}

// prune leaves out trees without which enough is freed, those first that free the least.
func (a *Account) prune(chosen set, n uint64) {
	freed := a.of(chosen).Bytes()
	for {
		least, loss := -1, uint64(0)
		for i, l := range a.losses(chosen) {
			if chosen.has(i) && l <= freed && freed-l >= n && (least < 0 || l < loss) {
				least, loss = i, l
			}
		}
		if least < 0 {
			return
		}
		chosen[least/64] &^= 1 << (least % 64)
		freed -= loss
	}
}

// losses tells for each chosen tree how many bytes less are freed without it.
func (a *Account) losses(chosen set) []uint64 {
	out := make([]uint64, a.trees)
	none := newSet(a.trees)
	for i := range a.holdings {
		h := &a.holdings[i]
		if !h.by.within(chosen) {
			continue
		}
		for _, t := range h.by.members(none) {
			out[t] += h.Bytes()
		}
	}
	return out
}
