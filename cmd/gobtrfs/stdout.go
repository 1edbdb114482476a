package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
)

// standardOutput remembers whether something could not be written, so that no command that prints has to ask each time, and
// none succeeds whose output was lost.
type standardOutput struct {
	file *os.File

	mu  sync.Mutex // guards err
	err error      // the first
}

// Write implements io.Writer.
func (o *standardOutput) Write(p []byte) (int, error) {
	n, err := o.file.Write(p)
	if err != nil {
		o.mu.Lock()
		if o.err == nil {
			o.err = err
		}
		o.mu.Unlock()
	}
	return n, err
}

// Fd is what pipes are widened by.
func (o *standardOutput) Fd() uintptr { return o.file.Fd() }

// checked is err, what a command ended with, or what became of its output if that was not told yet.
func (o *standardOutput) checked(verb string, err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var silent silentError
	switch {
	case o.err == nil:
		return err
	case err == nil, errors.As(err, &silent):
		return fmt.Errorf("%s: %w", verb, o.err)
	case strings.Contains(err.Error(), o.err.Error()):
		return err
	}
	return errors.Join(err, o.err)
}
