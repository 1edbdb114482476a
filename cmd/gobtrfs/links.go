package main

// inodeID tells inodes apart that belong to different subvolumes or devices.
type inodeID struct{ sub, ino uint64 }

// linkSet remembers where inodes with several names were put, until all of their names were met:
// a tree of any number of hard links needs little memory.
type linkSet map[inodeID]firstName

// firstName is the first name of an inode, and how many others are still to come.
type firstName struct {
	name string
	left uint64
}

// put notes the first name of an inode that has nlink of them.
func (s linkSet) put(id inodeID, name string, nlink uint64) {
	if nlink > 1 {
		s[id] = firstName{name, nlink - 1}
	}
}

// again gives the first name of an inode when another one is met.
func (s linkSet) again(id inodeID) (first string, ok bool) {
	f, ok := s[id]
	if !ok {
		return "", false
	}
	if f.left--; f.left == 0 {
		delete(s, id)
	} else {
		s[id] = f
	}
	return f.name, true
}

// move makes name the one to link to, if more are to come.
func (s linkSet) move(id inodeID, name string) {
	if f, ok := s[id]; ok {
		s[id] = firstName{name, f.left}
	}
}
