package blob_test

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/genstream/genstream/blob"
)

func TestOpenUnderstandsDirectories(t *testing.T) {
	for _, form := range []string{"file://%", "file://localhost%", "%"} {
		dir := filepath.Join(t.TempDir(), "not", "there yet")
		b := open(t, strings.Replace(form, "%", filepath.ToSlash(dir), 1))
		if _, err := b.Keep(t.Context(), anID, 0, bytes.NewReader(png(100)), mega); err != nil {
			t.Error(err)
		}
		if files := regular(t, dir); len(files) != 1 || !strings.HasPrefix(files[0], within) {
			t.Errorf("%s: the directory holds %q", form, files)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"", "file://", "file:///", "file://data/bucket", "file:///x?metadata=skip", "file:///x#y", "file:///%zz",
		"file://" + file, file + "/below", "nosuch://x", "mem://x?y=z",
	} {
		if b, err := blob.Open(t.Context(), bad); err == nil {
			b.Close()
			t.Errorf("Open(%q) works", bad)
		}
	}
}

// regular are the files below dir, relative to it.
func regular(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	for path := range strings.Lines(tree(t, dir)) {
		path = strings.TrimSuffix(path, "\n")
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
			rel, err := filepath.Rel(dir, path)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, filepath.ToSlash(rel))
		}
	}
	return files
}

func TestListShowsOnlyOurFiles(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	file, err := b.Keep(t.Context(), anID, 0, bytes.NewReader(png(100)), mega)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"README", "generations/.DS_Store", within + "notes.txt", within + "0-x.png", "inputs/x",
		"generations/lost+found/x", within + strings.TrimPrefix(aKey, within) + ".attrs",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, aKey)); err != nil {
		t.Fatal(err)
	}
	all := list(t, b, "")
	if _, ok := all[file.BlobKey]; !ok || len(all) != 1 {
		t.Errorf("listed: %v", all)
	}
}

// A folder that is not there is a bucket that is not there: a disk that is not
// mounted must not look like one on which every file is lost.
func TestListOfALostDirectoryFails(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	if err := os.RemoveAll(filepath.Join(dir, "generations")); err != nil {
		t.Fatal(err)
	}
	for _, err := range b.List(t.Context(), "") {
		if err == nil {
			t.Error("a file was listed")
		}
		return
	}
	t.Error("the list is empty and complete")
}

const killedDir = "GENSTREAM_TEST_KILLED_DIR"

func TestKilledWriteLeavesOnlyALeftover(t *testing.T) {
	if dir := os.Getenv(killedDir); dir != "" {
		writeUntilKilled(t, dir)
	}
	dir := t.TempDir()
	b := open(t, dir)
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledWriteLeavesOnlyALeftover$")
	cmd.Env = append(os.Environ(), killedDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if line != "writing\n" {
		t.Fatalf("the writer said %q, %v", line, err)
	}
	if files := regular(t, dir); len(files) != 1 {
		t.Fatalf("the killed writer left %q, want one file", files)
	}
	if all := list(t, b, ""); len(all) != 0 {
		t.Errorf("listed as files: %v", all)
	}
	var left []blob.Object
	for o, err := range b.Leftovers(t.Context(), within) {
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, o)
	}
	if len(left) != 1 {
		t.Fatalf("leftovers: %v", left)
	}
	if id, slot, kind, err := blob.ParseKey(left[0].Key); id != anID || slot != 5 || kind != blob.Leftover || err != nil {
		t.Errorf("the leftover %q parses as %s, %d, %d, %v", left[0].Key, id, slot, kind, err)
	}
	if r, err := b.Read(t.Context(), left[0].Key); err == nil {
		r.Close()
		t.Error("a leftover can be read")
	}
	if err := b.Delete(t.Context(), left[0].Key); err != nil {
		t.Error(err)
	}
	isEmpty(t, b)
}

// writeUntilKilled is the other process: it stops within the file and says so.
func writeUntilKilled(t *testing.T, dir string) {
	b := open(t, dir)
	stop := hook(func() {
		os.Stdout.WriteString("writing\n")
		select {}
	})
	b.Keep(t.Context(), anID, 5, io.MultiReader(bytes.NewReader(png(mega)), stop), 2*mega)
}
