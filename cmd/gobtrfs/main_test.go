package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/testenv"
)

// asCommand makes the test binary be the command, so that tests see exit status and
// both outputs as users do.
const asCommand = "GOBTRFS_TEST_AS_COMMAND"

// statusFile names in the environment of a command where it leaves what the kernel knows of it at its end.
const statusFile = "GOBTRFS_TEST_STATUS"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		code := run(context.Background(), os.Args[1:])
		if to := os.Getenv(statusFile); to != "" {
			status, err := os.ReadFile("/proc/self/status")
			if err == nil {
				err = os.WriteFile(to, status, 0o600)
			}
			if err != nil {
				panic(err)
			}
		}
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// result is what a command did.
type result struct {
	out, err string
	code     int
}

// command makes a command that has not run yet.
func command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	return cmd
}

func finish(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{out.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func gobtrfs(t testing.TB, args ...string) result {
	t.Helper()
	return finish(t, command(t, args...))
}

// ok runs a command that must do its work, and gives what it printed.
func ok(t testing.TB, args ...string) string {
	t.Helper()
	r := gobtrfs(t, args...)
	if r.code != 0 {
		t.Fatalf("gobtrfs %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// fails runs a command that must end with status code and an error that holds all of
// words.
func fails(t testing.TB, code int, words []string, args ...string) result {
	t.Helper()
	r := gobtrfs(t, args...)
	if r.code != code {
		t.Errorf("gobtrfs %s: exit %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.out, r.err)
	}
	for _, w := range words {
		if !strings.Contains(r.err, w) {
			t.Errorf("gobtrfs %s: the error does not tell %q:\n%s", strings.Join(args, " "), w, r.err)
		}
	}
	if strings.Contains(r.err, "panic") || strings.Contains(r.err, "goroutine ") {
		t.Errorf("gobtrfs %s: crashed:\n%s", strings.Join(args, " "), r.err)
	}
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// parse reads exactly one JSON document.
func parse[T any](t testing.TB, text string) T {
	t.Helper()
	var v T
	dec := json.NewDecoder(strings.NewReader(text))
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, text)
	}
	if _, err := dec.Token(); err != io.EOF {
		t.Fatalf("more than one document:\n%s", text)
	}
	return v
}

// members fails unless an object has all of names.
func members(t testing.TB, object map[string]any, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, there := object[n]; !there {
			t.Errorf("no member %q in %v", n, object)
		}
	}
}

// small makes an empty volume of 256 MiB.
func small(t testing.TB) string {
	t.Helper()
	image := filepath.Join(testenv.Scratch(t), "small.img")
	ok(t, "mkfs", "-q", "--size", "256M", "-L", "small", image)
	return image
}

func write(t testing.TB, name, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	must(t, os.WriteFile(name, []byte(text), 0o644))
}
