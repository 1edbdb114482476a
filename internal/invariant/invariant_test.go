package invariant

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	Check(true, "never said")
	defer func() {
		if msg, _ := recover().(string); !strings.Contains(msg, "refs 3 of 4") {
			t.Errorf("panic said %q", msg)
		}
	}()
	Check(false, "refs %d of %d", 3, 4)
	t.Error("a broken invariant did not stop")
}

func TestSometimes(t *testing.T) {
	hits := 0
	for range 10000 {
		if Sometimes(25) {
			hits++
		}
	}
	switch {
	case !Enabled && hits != 0:
		t.Errorf("%d hits without the build tag", hits)
	case Enabled && (hits < 2000 || hits > 3000):
		t.Errorf("%d hits of 10000, want about 2500", hits)
	}
	if Sometimes(0) {
		t.Error("Sometimes(0) happened")
	}
}
