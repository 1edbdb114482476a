// Package drop takes dead trees apart: subvolumes and snapshots that nobody names any more.
//
// # The idea
//
// Give up one reference; if it was the last one, first do the same for what the block refers to. That is all there is to dropping one tree, and
// Walk says it in a page. The rest of the package makes it fast (a whole set of trees in one pass per level) and lets it stop anywhere.
//
// # Words
//
//   - root: a dead tree. Its own reference on its root block is the first one it holds and the last one it gives up.
//   - give up: remove a reference. Nothing is freed here: changes are queued through Refs, an extent whose count falls to zero is freed by its owner.
//   - die, survive: a block dies when all its references are given up by the set. Otherwise it survives.
//   - convert: a block that survives its owner must name its children by "the block here points to you" instead of "a block of tree R points to you",
//     since R is going away (the FULL_BACKREF flag; the kernel's UPDATE_BACKREF stage).
//   - position: the key of the node slot that holds a reference. All references to one block sit at the same position: its first key.
//   - span: the positions below some key. A step takes one span of all roots, level by level.
//   - holder, heir: roots that reach a block which crosses the end of the span. One of them, the heir, keeps its reference and goes on inside the
//     block in the next step; the others give theirs up and are past it.
//   - sweep: taking out all references that name a set of dying blocks as their parent, without reading those blocks (Sweeper). It needs a span
//     without an end, for only reading tells at which keys unread leaves lie.
//   - cut: how far a root got: left of it every reference is given up, right of it none.
//
// # What must hold
//
// After each step every unfinished root has one cut, and each block on the cut has exactly one reference (invariant I7). So ROOT_ITEM's drop_progress
// and drop_level can express it, and any Btrfs finishes what we began. Conversions ahead of a cut do no harm: they are tested by flag. They are made
// bottom up when they do not fit one step, so that a block with FULL_BACKREF never stands above an unconverted one that we made so.
//
// The heir of a block is its owner where the owner still reaches it. The other holders are then snapshots taken later than the block was written;
// they own nothing below it, and may let go without converting anything. A tree that gave up a block can own nothing unconverted behind it.
//
// A block is left unread only if it dies and carries FULL_BACKREF, so that all that leaves it does so by parent; a node of level 1 moreover only if the
// tree that wrote it does not hold it, so that nothing below it can need conversion.
//
// A leaf that dies is left unread, too, where its place among the keys is none for file extents (see IsBare).
//
// The package is pure: it sees a volume through Blocks and Refs, and its results do not depend on the number of workers.
package drop
