package tidy

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"
)

const module = "github.com/gobtrfs/gobtrfs/"

// root is the module's directory, seen from this package.
const root = "../.."

// file is a parsed Go file.
type file struct {
	name string // relative to the module
	pkg  string // directory relative to the module
	test bool
	ast  *ast.File
}

// source parses every Go file of the module.
func source(t *testing.T) []file {
	t.Helper()
	var out []file
	set := token.NewFileSet()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := filepath.Base(p)
		if d.IsDir() {
			if base == "testdata" || strings.HasPrefix(base, ".") && base != ".." {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		f, err := parser.ParseFile(set, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		out = append(out, file{name: rel, pkg: path.Dir(rel), test: strings.HasSuffix(base, "_test.go"), ast: f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 50 {
		t.Fatalf("only %d files found", len(out))
	}
	return out
}

// rule is a line of imports.txt.
type rule struct {
	pure bool
	may  map[string]bool
}

func rules(t *testing.T) map[string]rule {
	t.Helper()
	f, err := os.Open("imports.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string]rule{}
	for s := bufio.NewScanner(f); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		head, may, _ := strings.Cut(line, ":")
		name, pure := strings.CutPrefix(head, "pure ")
		r := rule{pure: pure, may: map[string]bool{}}
		for _, m := range strings.Fields(may) {
			if _, ok := out[m]; !ok {
				t.Errorf("imports.txt: %s may import %s, which is not declared above it", name, m)
			}
			r.may[m] = true
		}
		out[name] = r
	}
	return out
}

// TestImports holds every package to imports.txt.
func TestImports(t *testing.T) {
	all := rules(t)
	for _, f := range source(t) {
		name, internal := strings.CutPrefix(f.pkg, "internal/")
		if f.test || !internal {
			continue
		}
		r, ok := all[name]
		if !ok {
			t.Errorf("%s: package is not in imports.txt", f.pkg)
			continue
		}
		for _, i := range f.ast.Imports {
			p := strings.Trim(i.Path.Value, `"`)
			if own, ok := strings.CutPrefix(p, module); ok {
				if !r.may[strings.TrimPrefix(own, "internal/")] {
					t.Errorf("%s imports %s, which imports.txt does not allow", f.name, own)
				}
			} else if r.pure && impure(p) {
				t.Errorf("%s imports %s, but its package is pure", f.name, p)
			}
		}
	}
}

// impure tells the packages of the standard library that do I/O, read the clock
// or break the rules of the language.
func impure(p string) bool {
	switch first, _, _ := strings.Cut(p, "/"); first {
	case "os", "net", "syscall", "unsafe", "time", "log":
		return true
	}
	return strings.HasPrefix(p, "math/rand")
}

// TestLayers: the command and the public package stand on top; nothing internal
// imports them, and only testenv's users are tests.
func TestLayers(t *testing.T) {
	for _, f := range source(t) {
		for _, i := range f.ast.Imports {
			p := strings.Trim(i.Path.Value, `"`)
			own, ok := strings.CutPrefix(p, module)
			if !ok {
				if p == "unsafe" || p == "C" {
					t.Errorf("%s imports %s", f.name, p)
				}
				continue
			}
			if own == "internal/testenv" && !f.test {
				t.Errorf("%s imports testenv outside a test", f.name)
			}
			if (own == "btrfs" || strings.HasPrefix(own, "cmd/")) && strings.HasPrefix(f.pkg, "internal/") && !f.test {
				t.Errorf("%s imports %s from below", f.name, own)
			}
		}
	}
}

// TestPackageDoc: every package says what it is for.
func TestPackageDoc(t *testing.T) {
	said, seen := map[string]bool{}, map[string]bool{}
	for _, f := range source(t) {
		if strings.HasSuffix(f.ast.Name.Name, "_test") || f.test && !strings.HasPrefix(f.pkg, "test/") && f.pkg != "internal/tidy" {
			continue
		}
		seen[f.pkg] = true
		if f.ast.Doc != nil && len(f.ast.Doc.Text()) > 40 {
			said[f.pkg] = true
		}
	}
	var names []string
	for p := range seen {
		names = append(names, p)
	}
	sort.Strings(names)
	for _, p := range names {
		if !said[p] {
			t.Errorf("%s has no package comment", p)
		}
	}
}

// TestNoPanic: only package invariant stops the process; nothing runs before
// main.
func TestNoPanic(t *testing.T) {
	for _, f := range source(t) {
		if f.test || f.pkg == "internal/invariant" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "panic" {
					t.Errorf("%s calls panic", f.name)
				}
			case *ast.FuncDecl:
				if n.Recv == nil && n.Name.Name == "init" {
					t.Errorf("%s has an init function", f.name)
				}
			}
			return true
		})
	}
}

// TestNames: no package is a drawer, and no file tells of the machine that it
// was written on.
func TestNames(t *testing.T) {
	place := regexp.MustCompile(`/wo` + `rk/|\.libr` + `ary`)
	for _, f := range source(t) {
		switch f.ast.Name.Name {
		case "util", "utils", "common", "helpers", "base", "misc":
			t.Errorf("%s: package %s says nothing", f.name, f.ast.Name.Name)
		}
		b, err := os.ReadFile(filepath.Join(root, f.name))
		if err != nil {
			t.Fatal(err)
		}
		if m := place.Find(b); m != nil {
			t.Errorf("%s names %s", f.name, m)
		}
	}
}
