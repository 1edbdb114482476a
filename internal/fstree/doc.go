// Package fstree knows what the items of a subvolume's tree mean: inodes, names,
// extended attributes and the extents of files.
//
// The functions that take a *btree.Tree read. The methods of Tree change, inside
// a transaction.
//
// What must hold. Every name has one DIR_ITEM entry, one DIR_INDEX item and one
// INODE_REF or INODE_EXTREF entry with the same index; names of nested
// subvolumes have ROOT_REF and ROOT_BACKREF instead. The size of a directory is
// twice the length of its names. An inode without names has an ORPHAN_ITEM. Each
// extent that an EXTENT_DATA item points to has one reference for it. A change
// that fails before anything was changed leaves the transaction usable; one that
// fails later aborts it.
package fstree
