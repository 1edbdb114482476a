package tidy

import (
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"maps"
	"math/bits"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gobtrfs/gobtrfs/internal/ondisk"
)

// compat is docs/COMPAT.md.
func compat(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "docs", "COMPAT.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// volumes are the names of the volumes of the corpus.
func volumes(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "testdata", "corpus", "images", "*.img.zst"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	out := map[string]bool{}
	for _, f := range files {
		name, _, _ := strings.Cut(filepath.Base(f), ".")
		out[name] = true
	}
	return out
}

var link = regexp.MustCompile(`\[([^\]]*)\]\(([^)]*)\)`)

// TestCompatLinks: what docs/COMPAT.md links to is there: the file, the test in it, and the case of the test, which the
// file names, or which is a volume of the corpus or a feature.
func TestCompatLinks(t *testing.T) {
	text, known := compat(t), volumes(t)
	for _, name := range slices.Concat(ondisk.IncompatNames(^uint64(0)), ondisk.CompatRONames(^uint64(0))) {
		known[name] = true
	}
	files := map[string]string{}
	links := link.FindAllStringSubmatch(text, -1)
	for _, l := range links {
		name := path.Join("docs", l[2])
		if files[name] == "" {
			b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
			if err != nil {
				t.Error(err)
				continue
			}
			files[name] = string(b)
		}
		test, cases, _ := strings.Cut(l[1], "/")
		if !strings.Contains(files[name], "\nfunc "+test+"(") {
			t.Errorf("%s has no test %s", name, test)
		}
		for c := range strings.SplitSeq(cases, "/") {
			if !known[c] && !strings.Contains(files[name], c) {
				t.Errorf("%s: %s has no case %q", name, test, c)
			}
		}
	}
	if len(links) < 100 {
		t.Errorf("only %d links", len(links))
	}
}

// TestCompatLines: every line of the tables links to a test, or says that there is none.
func TestCompatLines(t *testing.T) {
	lines := 0
	for line := range strings.SplitSeq(compat(t), "\n") {
		if !strings.HasPrefix(line, "| ") || strings.HasSuffix(line, "| shown by |") {
			continue
		}
		lines++
		if !link.MatchString(line) && !strings.HasSuffix(line, "| not tested |") {
			t.Errorf("no test is named: %s", line)
		}
	}
	if lines < 100 {
		t.Errorf("only %d lines", lines)
	}
}

// TestCompatComplete: docs/COMPAT.md has a line for every type of item and every feature bit that package ondisk knows,
// and names every volume of the corpus.
func TestCompatComplete(t *testing.T) {
	text := compat(t)
	row := func(what, number, name string) {
		if !strings.Contains(text, "\n| "+number+" | `"+name+"` | ") {
			t.Errorf("no line for %s %s, %s", what, number, name)
		}
	}
	seen := map[string]int{}
	for name, v := range constants(t) {
		switch {
		case strings.HasPrefix(name, "Type"):
			row("item type", strconv.FormatUint(v, 10), ondisk.KeyType(v).String())
			seen["Type"]++
		case strings.HasPrefix(name, "Incompat"):
			row("incompat bit", strconv.Itoa(bits.TrailingZeros64(v)), ondisk.IncompatNames(v)[0])
			seen["Incompat"]++
		case strings.HasPrefix(name, "CompatRO"):
			row("compat_ro bit", strconv.Itoa(bits.TrailingZeros64(v)), ondisk.CompatRONames(v)[0])
			seen["CompatRO"]++
		}
	}
	if seen["Type"] < 40 || seen["Incompat"] < 17 || seen["CompatRO"] < 4 {
		t.Errorf("package ondisk was misread: %v", seen)
	}
	for _, name := range slices.Sorted(maps.Keys(volumes(t))) {
		if !strings.Contains(text, "/"+name+"](") {
			t.Errorf("the volume %s is not named", name)
		}
	}
}

// constants are the numbers that package ondisk gives to KeyTypes and uint64s.
func constants(t *testing.T) map[string]uint64 {
	t.Helper()
	out := map[string]uint64{}
	for _, f := range source(t) {
		if f.pkg != "internal/ondisk" || f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			s, ok := n.(*ast.ValueSpec)
			if !ok || s.Type == nil || len(s.Values) != 1 {
				return true
			}
			if typ := types.ExprString(s.Type); typ != "KeyType" && typ != "uint64" {
				return true
			}
			v, err := types.Eval(token.NewFileSet(), nil, token.NoPos, types.ExprString(s.Values[0]))
			if err != nil {
				return true // made of other constants
			}
			if n, exact := constant.Uint64Val(constant.ToInt(v.Value)); exact {
				out[s.Names[0].Name] = n
			}
			return true
		})
	}
	return out
}
