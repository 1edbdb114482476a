// Package filedata reads and writes the bytes of files: extents, checksums and
// compression.
//
// What must hold. No byte of a file with checksums is handed out unless the
// sector that it lies in matched; a copy that fails is read from the next
// mirror. Data are written to new places only, and the tree points to them
// after they were written. The nbytes of an inode is the sum over its extents,
// and on a volume without NO_HOLES every byte up to the size is covered by an
// item.
package filedata
