package doctor

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/genstream/genstream/blob"
)

// slow is how long one durable write may take before it is told: everything that
// leaves genstream waits for one.
const slow = 100 * time.Millisecond

// Bucket writes a file, reads it, a part of it, and deletes it. openErr is why the
// bucket could not be opened, or nil.
func Bucket(ctx context.Context, where string, b *blob.Bucket, openErr error) Finding {
	const do = "check the URL, the credentials (AWS_ACCESS_KEY_ID and its like) and what they may do: put, get, list, delete"
	if openErr != nil {
		return broken("bucket", do, "%s: %v", where, openErr)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	p, err := b.Probe(ctx)
	if err != nil {
		return broken("bucket", do, "%s: %v", where, err)
	}
	seen := "%s: written in %s, read in %s, a range in %s, deleted in %s"
	args := []any{where, short(p.Write), short(p.Read), short(p.Range), short(p.Delete)}
	if p.Write > 2*time.Second {
		return warning("bucket", "every output waits that long: is the bucket in another region?", seen, args...)
	}
	return ok("bucket", seen, args...)
}

// syncTime is what a small write in dir costs until it is on disk.
func syncTime(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var took []time.Duration
	for range 9 {
		started := time.Now()
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(started))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// Disk looks at the room where dir is, of free and total bytes, of which creates
// need mark, and at how long a sync takes there.
func Disk(dir string, free, total, mark int64) []Finding {
	room := ok("disk", "%s: %d of %d MiB are left, creates need %d", dir, free>>20, total>>20, mark>>20)
	switch {
	case free < mark:
		room = broken("disk", "make room: creates are refused, what is in flight still completes", "%s: %d MiB are left, creates need %d", dir, free>>20, mark>>20)
	case free < 2*mark:
		room = warning("disk", "make room: creates are refused below that", "%s: %d MiB are left, creates need %d", dir, free>>20, mark>>20)
	}
	took, err := syncTime(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return []Finding{room}
	case err != nil:
		return []Finding{room, broken("fsync", "may this user write there?", "%s: %v", dir, err)}
	case took > slow:
		return []Finding{room, warning("fsync", "use another disk: every answer waits for one", "%s: a sync takes %s", dir, short(took))}
	}
	return []Finding{room, ok("fsync", "%s: a sync takes %s", dir, short(took))}
}

// SecretFile looks at who may read a file of secrets; it is passed over if it is
// not there.
func SecretFile(path string) []Finding {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return []Finding{broken("secrets", "may this user read it?", "%v", err)}
	}
	if info.Mode().Perm()&0o007 != 0 {
		return []Finding{warning("secrets", "chmod 0600 "+path, "everybody on this machine can reach %s (mode %04o)", path, info.Mode().Perm())}
	}
	return nil
}
