package blob_test

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
)

const (
	anID   = events.ID("0192f0c4-7b1e-7c3a-9d5e-0123456789ab")
	noise  = "0123456789abcdef0123456789abcdef"
	aKey   = "generations/0192f0c4-7b1e-7c3a-9d5e-0123456789ab/0-0123456789abcdef0123456789abcdef.png"
	aRaw   = "generations/0192f0c4-7b1e-7c3a-9d5e-0123456789ab/delivery-0123456789abcdef0123456789abcdef.json"
	aTemp  = aKey + ".18c0ffee12345678.tmp"
	within = "generations/0192f0c4-7b1e-7c3a-9d5e-0123456789ab/"
)

func TestParseKeyAcceptsWhatIsMade(t *testing.T) {
	for _, c := range []struct {
		key  string
		slot int
		kind blob.Kind
	}{
		{blob.Key(anID, 0, noise, "png"), 0, blob.OutputFile},
		{blob.Key(anID, 19, noise, "webm"), 19, blob.OutputFile},
		{blob.Key(anID, 7, noise, "mp4"), 7, blob.OutputFile},
		{blob.RawKey(anID, noise), -1, blob.RawDelivery},
		{aKey, 0, blob.OutputFile},
		{aRaw, -1, blob.RawDelivery},
		{aTemp, 0, blob.Leftover},
		{aRaw + ".1.tmp", -1, blob.Leftover},
	} {
		id, slot, kind, err := blob.ParseKey(c.key)
		if err != nil || id != anID || slot != c.slot || kind != c.kind {
			t.Errorf("ParseKey(%q) = %q, %d, %d, %v; want slot %d, kind %d", c.key, id, slot, kind, err, c.slot, c.kind)
		}
	}
}

func TestKeyPanicsOnWhatItCouldNotParse(t *testing.T) {
	for name, make := range map[string]func(){
		"slot too high": func() { blob.Key(anID, events.MaxCount, noise, "png") },
		"slot negative": func() { blob.Key(anID, -1, noise, "png") },
		"short noise":   func() { blob.Key(anID, 0, noise[1:], "png") },
		"traversal":     func() { blob.Key(anID, 0, noise, "/../x") },
		"long ending":   func() { blob.Key(anID, 0, noise, "jsonl") },
		"no ID":         func() { blob.RawKey("", noise) },
		"ID with slash": func() { blob.RawKey("../../../../../../etc/passwd/aaaaaaaa", noise) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			make()
		})
	}
}

// hostile are keys that must reach no driver: each differs from a good one by
// what somebody might smuggle into it.
func hostile() []string {
	keys := []string{
		"", ".", "..", "/", "//", "\\", "\x00", " ", "~", "*", ">", "generations", "generations/", within, within[:len(within)-1],
		"/" + aKey, "./" + aKey, "../" + aKey, "//" + aKey, " " + aKey, aKey + " ", aKey + "/", aKey + "/.", aKey + "/..", aKey + "\n", aKey + "\r\n",
		aKey + "\x00", aKey + "\x00.png", "\ufeff" + aKey, aKey + "?x=1", aKey + "#x", aKey + ";x", aKey + "%00", aKey + ":$DATA", aKey + "::$INDEX_ALLOCATION",
		strings.ReplaceAll(aKey, "/", "\\"), strings.ReplaceAll(aKey, "/", "%2f"), strings.ReplaceAll(aKey, "/", "%5c"), strings.ReplaceAll(aKey, "/", "∕"),
		strings.ReplaceAll(aKey, "/", "／"), strings.ReplaceAll(aKey, "/", "//"), strings.ReplaceAll(aKey, "/", "/./"), strings.ReplaceAll(aKey, ".", "。"),
		strings.ReplaceAll(aKey, ".", "．"), strings.ReplaceAll(aKey, ".", "․"), strings.ReplaceAll(aKey, "-", "‐"), strings.ToUpper(aKey), "Generations" + aKey[11:],
		"GENERATIONS" + aKey[11:], "generation" + aKey[11:], "generations." + aKey[11:], "generations " + aKey[11:], "inputs" + aKey[11:], "C:" + aKey, "file://" + aKey,
		"s3://bucket/" + aKey, "\\\\host\\share\\" + aKey, "//?/C:/" + aKey, "CON/" + aKey, aKey + ".attrs", aKey + ".tmp", aKey + ".zz.tmp", aKey + "..tmp",
		aTemp + ".tmp", aTemp + ".1.tmp", aTemp + "/x", "../" + aTemp, aKey + ".11112222333344445.tmp", aKey + ".ABC.tmp", aKey + "." + strings.Repeat("a", 4096) + ".tmp",
		aRaw + ".gz", strings.Replace(aRaw, "json", "html", 1), strings.Replace(aRaw, "delivery", "Delivery", 1), aRaw + "x", strings.Replace(aRaw, "delivery-", "delivery", 1),
		strings.Repeat("../", 1365) + "x", strings.Repeat("a", 4096), within + strings.Repeat("a", 4096), "generations/" + strings.Repeat("../", 64) + "etc/passwd",
	}
	for _, owner := range []string{
		"", ".", "..", "...", "%2e%2e", "..%2f..", "\u2024\u2024", "．．", "CON", "NUL", "AUX", "COM1", "LPT1", "*", ">", "a.b", string(anID) + " ", string(anID) + ".",
		strings.ToUpper(string(anID)), "{" + string(anID) + "}", strings.ReplaceAll(string(anID), "-", ""), string(anID[:35]), string(anID) + "0",
		"0192f0c4-7b1e-4c3a-9d5e-0123456789ab", "0192f0c4-7b1e-7c3a-cd5e-0123456789ab", "0192f0c4-7b1e-7c3a-9d5e-0123456789a\x00", "0192f0c4-7b1e-7c3a-9d5e-0123456789a/",
	} {
		keys = append(keys, "generations/"+owner+"/0-"+noise+".png")
	}
	for _, name := range []string{
		".", "..", "../x", "..%2f", "..\\x", "%2e%2e%2fx", "CON", "con.png", "NUL.png", "COM1", "LPT1.png", "aux", "0", "0-", "0-.png", "-" + noise + ".png",
		"0-" + noise, "0-" + noise + ".", "0-" + noise + ".p", "0-" + noise + ".PNG", "0-" + noise + ".html5", "0-" + noise + ".png.exe", "0-" + noise + "..png",
		"0-" + noise[:31] + ".png", "0-" + noise + "0.png", "0-" + strings.ToUpper(noise) + ".png", "0-" + noise[:31] + "g.png", "0-" + noise[:31] + "/.png",
		"00-" + noise + ".png", "01-" + noise + ".png", "20-" + noise + ".png", "-1-" + noise + ".png", "+1-" + noise + ".png", "1e0-" + noise + ".png", "0x1-" + noise + ".png",
		"٠-" + noise + ".png", "99999999999999999999-" + noise + ".png", " 0-" + noise + ".png", "0 -" + noise + ".png", "0--" + noise + ".png", "0-" + noise + ".p/g",
		"0-" + noise + ".p\x00g", "0-" + noise + ".\u0440ng", "0-" + noise + ".png\u202e", "$file", "|cat", "`x`", "$(x)", "<x>", "\x1b[2J", "\xff\xfe",
	} {
		keys = append(keys, within+name)
	}
	return keys
}

func TestHostileKeysReachNoDriver(t *testing.T) {
	outer := t.TempDir()
	root := filepath.Join(outer, "a", "bucket")
	b, err := blob.Open(t.Context(), "file://"+filepath.ToSlash(root))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	before := tree(t, outer)
	seen := map[string]bool{}
	for _, key := range hostile() {
		if seen[key] {
			t.Errorf("%q is in the table twice", key)
		}
		seen[key] = true
		if _, _, kind, err := blob.ParseKey(key); !errors.Is(err, blob.ErrKey) || kind != 0 {
			t.Errorf("ParseKey(%.80q) = kind %d, %v; want ErrKey", key, kind, err)
		}
		if _, err := b.Read(context.Background(), key); !errors.Is(err, blob.ErrKey) {
			t.Errorf("Read(%.80q) = %v; want ErrKey", key, err)
		}
		if err := b.Delete(context.Background(), key); !errors.Is(err, blob.ErrKey) {
			t.Errorf("Delete(%.80q) = %v; want ErrKey", key, err)
		}
		for o, err := range b.List(context.Background(), key) {
			t.Errorf("List(%.80q) yields %v, %v", key, o, err)
		}
	}
	if len(seen) < 100 {
		t.Errorf("the table has %d keys, want 100 or more", len(seen))
	}
	if after := tree(t, outer); after != before {
		t.Errorf("the disk changed from\n%s\nto\n%s", before, after)
	}
}

// tree is everything below dir, one path a line.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

func FuzzParseKey(f *testing.F) {
	f.Add(aKey)
	f.Add(aRaw)
	f.Add(aTemp)
	f.Add("inputs/" + noise + noise)
	f.Fuzz(func(t *testing.T, key string) {
		id, slot, kind, err := blob.ParseKey(key)
		if err != nil {
			return
		}
		place := "generations/" + string(id) + "/"
		if id == "" {
			place = "inputs/"
		}
		if !filepath.IsLocal(key) || filepath.ToSlash(filepath.Clean(key)) != key || !strings.HasPrefix(key, place) {
			t.Errorf("%q is accepted and is no plain path", key)
		}
		if kind == blob.OutputFile && slot < 0 || kind == blob.RawDelivery && slot != -1 {
			t.Errorf("%q has slot %d, kind %d", key, slot, kind)
		}
	})
}
