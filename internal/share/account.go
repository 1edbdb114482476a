package share

import "slices"

// Sum is what some blocks and extents take.
type Sum struct {
	Blocks        uint64 // tree blocks
	MetadataBytes uint64
	Extents       uint64 // data extents
	DataBytes     uint64
	ChecksumBytes uint64
	DiskBytes     uint64 // all copies counted
}

// Bytes is the space for files and their trees, each byte counted once.
func (s Sum) Bytes() uint64 { return s.MetadataBytes + s.DataBytes }

func (s *Sum) add(o Sum) {
	s.Blocks += o.Blocks
	s.MetadataBytes += o.MetadataBytes
	s.Extents += o.Extents
	s.DataBytes += o.DataBytes
	s.ChecksumBytes += o.ChecksumBytes
	s.DiskBytes += o.DiskBytes
}

// holding is what exactly the trees of a set hold together.
type holding struct {
	by set
	Sum
}

// Account tells what trees hold, alone and together. Trees are named by their places in the list that Count was given.
type Account struct {
	trees    int
	holdings []holding
	alone    []Sum
	all      Sum
	reads    uint64
}

func (w *walk) account(trees int) *Account {
	a := &Account{trees: trees, alone: make([]Sum, trees), reads: w.reads}
	for n, sum := range w.sums {
		a.put(w.sets.sets[n], *sum)
	}
	// In an order that does not depend on maps.
	slices.SortFunc(a.holdings, func(x, y holding) int { return slices.Compare(x.by, y.by) })
	return a
}

func (a *Account) put(by set, sum Sum) {
	a.holdings = append(a.holdings, holding{by: by, Sum: sum})
	a.all.add(sum)
	if first, last, ok := by.span(newSet(a.trees)); ok && first == last {
		a.alone[first] = sum
	}
}

// Alone is what deleting one tree frees.
func (a *Account) Alone(tree int) Sum { return a.alone[tree] }

// All is what deleting all trees frees.
func (a *Account) All() Sum { return a.all }

// Of is what deleting some trees, and no others, frees.
func (a *Account) Of(trees []int) Sum { return a.of(newSet(a.trees, trees...)) }

func (a *Account) of(s set) (sum Sum) {
	for i := range a.holdings {
		if a.holdings[i].by.within(s) {
			sum.add(a.holdings[i].Sum)
		}
	}
	return sum
}

// Reads is how many blocks were read.
func (a *Account) Reads() uint64 { return a.reads }
