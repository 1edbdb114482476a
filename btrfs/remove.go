package btrfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// mostListed is how many names RemoveAll keeps of a directory that is not in another one.
const mostListed = 4096

// RemoveAll removes a file, or a directory with all that is in it, in many small
// changes; what is not there counts as removed. Subvolumes are left as they are:
// where there is one, the call fails, and what it had removed by then stays removed.
func (s *Subvolume) RemoveAll(name string) error {
	return s.RemoveAllContext(context.Background(), name)
}

// RemoveAllContext is RemoveAll; it ends between two changes when ctx does.
func (s *Subvolume) RemoveAllContext(ctx context.Context, name string) error {
	if !validPath(name) || name == "." {
		return pathErr("remove", name, fs.ErrInvalid)
	}
	r := remover{s: s, ctx: ctx, most: mostListed}
	return r.all(name)
}

// remover is one RemoveAll. It reads directories in parts, which get smaller the
// deeper it is, so that what it keeps hardly grows with the depth.
type remover struct {
	s    *Subvolume
	ctx  context.Context
	most int
	dirs []node // on the way to what is removed
}

func (r *remover) all(name string) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	st, n, err := r.s.statOnce(name, false)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return pathErr("remove", name, err)
	case n.ino == rootIno:
		return pathErr("remove", name, errIsSubvolume)
	}
	if st.IsDir() && !n.stub {
		if err := r.contents(name, n); err != nil {
			return err
		}
	}
	err = r.s.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// contents removes what is in a directory. It goes by the index of the entries, so
// it ends, whatever the directory holds.
func (r *remover) contents(name string, n node) error {
	if slices.Contains(r.dirs, n) {
		return pathErr("remove", name, insideItself(n))
	}
	r.dirs = append(r.dirs, n)
	defer func() { r.dirs = r.dirs[:len(r.dirs)-1] }()
	for from, done := uint64(0), false; !done; {
		// Not open while its entries are removed: files would be kept for longer.
		f, err := r.s.open(name)
		if err != nil {
			return pathErr("remove", name, err)
		}
		f.dirNext = from
		list, err := f.ReadDir(max(r.most/len(r.dirs), 1))
		from, done = f.dirNext, f.dirDone
		if err = errors.Join(dropEOF(err), f.Close()); err != nil {
			return err
		}
		for _, e := range list {
			if err := r.all(path.Join(name, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func dropEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// errIsSubvolume: DeleteSubvolumes is for those.
var errIsSubvolume = fmt.Errorf("a subvolume is deleted as one: %w", fs.ErrPermission)

// insideItself is the error of a directory that is reached from itself.
func insideItself(n node) error {
	return &ondisk.CorruptError{What: fmt.Sprintf("directory %d", n.ino), Tree: n.sub, Slot: -1, Reason: "is inside itself"}
}
