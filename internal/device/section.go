package device

// section is a window of another device.
type section struct {
	dev       Device
	off, size int64
}

// Section returns the size bytes at off of dev as a device of its own. Closing it closes dev.
func Section(dev Device, off, size int64) (Device, error) {
	if err := InRange(off, size, dev.Size()); err != nil {
		return nil, err
	}
	return &section{dev, off, size}, nil
}

func (s *section) ReadAt(p []byte, off int64) (int, error) {
	n, eof := readLimit(off, int64(len(p)), s.size)
	if n == 0 {
		return 0, eof
	}
	got, err := s.dev.ReadAt(p[:n], s.off+off)
	if int64(got) == n {
		err = eof
	}
	return got, err
}

func (s *section) WriteAt(p []byte, off int64) (int, error) {
	if err := InRange(off, int64(len(p)), s.size); err != nil {
		return 0, err
	}
	return s.dev.WriteAt(p, s.off+off)
}

func (s *section) Discard(off, n int64) error {
	if err := InRange(off, n, s.size); err != nil {
		return err
	}
	return s.dev.Discard(s.off+off, n)
}

func (s *section) Flush() error { return s.dev.Flush() }
func (s *section) Size() int64  { return s.size }
func (s *section) Close() error { return s.dev.Close() }
