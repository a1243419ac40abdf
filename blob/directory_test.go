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

// killedIn runs a writer in another process on dir, kills it in the midst of a
// file, and returns the one file that it leaves.
func killedIn(t *testing.T, dir, test string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$")
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
	files := regular(t, dir)
	if len(files) != 1 {
		t.Fatalf("the killed writer left %q, want one file", files)
	}
	return files[0]
}

// hang says that the writer is within its file, and stays there.
func hang() io.Reader {
	return hook(func() {
		os.Stdout.WriteString("writing\n")
		select {}
	})
}

func TestKilledWriteLeavesAFileThatNobodyNames(t *testing.T) {
	if dir := os.Getenv(killedDir); dir != "" {
		b := open(t, dir)
		b.Keep(t.Context(), anID, 5, io.MultiReader(bytes.NewReader(png(mega)), hang()), 2*mega)
	}
	dir := t.TempDir()
	b := open(t, dir)
	left := killedIn(t, dir, t.Name())
	if id, slot, kind, err := blob.ParseKey(left); id != anID || slot != 5 || kind != blob.OutputFile || err != nil {
		t.Errorf("what is left, %q, parses as %s, %d, %d, %v", left, id, slot, kind, err)
	}
	if _, ok := list(t, b, within)[left]; !ok {
		t.Error("what is left is not listed, so nobody would remove it")
	}
	if err := b.Delete(t.Context(), left); err != nil {
		t.Error(err)
	}
	isEmpty(t, b)
}

// A file for inputs is known by its name: it must never be there in part.
func TestKilledUploadLeavesOnlyALeftover(t *testing.T) {
	if dir := os.Getenv(killedDir); dir != "" {
		b := open(t, dir)
		blob.WriteInput(t.Context(), b, io.MultiReader(bytes.NewReader(png(mega)), hang()))
	}
	dir := t.TempDir()
	b := open(t, dir)
	killedIn(t, dir, t.Name())
	if all := list(t, b, ""); len(all) != 0 {
		t.Errorf("listed as files: %v", all)
	}
	var left []blob.Object
	for o, err := range b.Leftovers(t.Context(), "inputs/") {
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, o)
	}
	if len(left) != 1 {
		t.Fatalf("leftovers: %v", left)
	}
	if _, slot, kind, err := blob.ParseKey(left[0].Key); slot != -1 || kind != blob.Leftover || err != nil {
		t.Errorf("the leftover %q parses as %d, %d, %v", left[0].Key, slot, kind, err)
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
