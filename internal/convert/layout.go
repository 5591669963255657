package convert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

var (
	_ Source = (*layout)(nil)
	_ Target = (*layout)(nil)
)

// A layout is an image in an OCI layout folder. Its index.json is only ever replaced
// whole, and under a lock: several conversions may write to one folder.
type layout struct {
	dir    string
	tag    string        // empty: latest, or the only image there is
	digest digest.Digest // instead of a tag
}

func (l *layout) String() string {
	if l.digest != "" {
		return prefixLayout + l.dir + "@" + l.digest.String()
	}
	return prefixLayout + l.dir + ":" + l.tagOrDefault()
}

func (l *layout) tagOrDefault() string {
	if l.tag == "" {
		return defaultTag
	}
	return l.tag
}

func (l *layout) Close(context.Context) error { return nil }

// Origin implements Target.
func (l *layout) Origin() string { return "" }

// Resolve implements Source.
func (l *layout) Resolve(context.Context) (ocispec.Descriptor, error) {
	if err := l.checkVersion(); err != nil {
		return ocispec.Descriptor{}, err
	}
	index, err := l.readIndex()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if l.digest != "" {
		return l.resolveDigest(index)
	}
	var found []ocispec.Descriptor
	for _, m := range index.Manifests {
		if m.Annotations[ocispec.AnnotationRefName] == l.tagOrDefault() {
			found = append(found, m)
		}
	}
	if len(found) == 0 && l.tag == "" && len(index.Manifests) == 1 {
		return index.Manifests[0], nil
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return ocispec.Descriptor{}, fmt.Errorf("%w: %s has no image %q; it has %s", errNoImage, l.dir, l.tagOrDefault(), l.tags(index))
	default:
		return ocispec.Descriptor{}, fmt.Errorf("%w: %s has %d images named %q; name one with oci:DIR@DIGEST", errNoImage, l.dir, len(found), l.tagOrDefault())
	}
}

var errNoImage = errors.New("image does not exist")

func (l *layout) resolveDigest(index *ocispec.Index) (ocispec.Descriptor, error) {
	for _, m := range index.Manifests {
		if m.Digest == l.digest {
			return m, nil
		}
	}
	info, err := os.Stat(l.blobPath(l.digest))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: %w", errNoImage, err)
	}
	return ocispec.Descriptor{Digest: l.digest, Size: info.Size()}, nil
}

func (l *layout) tags(index *ocispec.Index) string {
	var tags []string
	for _, m := range index.Manifests {
		if name := m.Annotations[ocispec.AnnotationRefName]; name != "" {
			tags = append(tags, name)
		}
	}
	if len(tags) == 0 {
		return fmt.Sprintf("%d images without a name", len(index.Manifests))
	}
	return strings.Join(tags, ", ")
}

// Fetch implements Source.
func (l *layout) Fetch(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w", desc.Digest, err)
	}
	f, err := os.Open(l.blobPath(desc.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the layout is incomplete: %w", err)
	}
	return f, err
}

// blobPath is safe for digests that are valid.
func (l *layout) blobPath(d digest.Digest) string {
	return filepath.Join(l.dir, ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// checkVersion refuses folders that are no layout, or a newer one.
func (l *layout) checkVersion() error {
	data, err := readFile(filepath.Join(l.dir, ocispec.ImageLayoutFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is no OCI layout: %w", l.dir, err)
	} else if err != nil {
		return err
	}
	var v ocispec.ImageLayout
	if err := json.Unmarshal(data, &v); err != nil {
		return fmt.Errorf("%s is no OCI layout: its oci-layout: %w", l.dir, err)
	}
	if v.Version != ocispec.ImageLayoutVersion {
		return fmt.Errorf("%s is an OCI layout of version %q, and only %s is known", l.dir, v.Version, ocispec.ImageLayoutVersion)
	}
	return nil
}

func (l *layout) indexPath() string { return filepath.Join(l.dir, ocispec.ImageIndexFile) }

func (l *layout) readIndex() (*ocispec.Index, error) {
	data, err := readFile(l.indexPath())
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", l.indexPath(), err)
	}
	return &index, nil
}

// readFile reads a small file.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err == nil && len(data) > maxManifest {
		err = fmt.Errorf("%s has more than %d bytes", path, maxManifest)
	}
	return data, err
}

// Prepare implements Target: it makes the layout if there is none.
func (l *layout) Prepare(context.Context) error {
	entries, err := os.ReadDir(l.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	isLayout, isEmpty := false, true
	for _, e := range entries {
		isLayout = isLayout || e.Name() == ocispec.ImageLayoutFile
		// Another conversion may be making the same layout right now.
		isEmpty = isEmpty && strings.HasPrefix(e.Name(), tempPrefix)
	}
	switch {
	case isLayout:
		err = errors.Join(l.checkVersion(), unix.Access(l.dir, unix.W_OK))
	case isEmpty:
		err = l.create()
	default:
		err = fmt.Errorf("%s is neither empty nor an OCI layout", l.dir)
	}
	if err != nil {
		return err
	}
	return os.MkdirAll(filepath.Dir(l.blobPath(digest.FromBytes(nil))), 0o755)
}

// create makes an empty layout. What tells it from other folders comes first.
func (l *layout) create() error {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return err
	}
	data, err := marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(l.dir, ocispec.ImageLayoutFile), data)
}

// Push implements Target.
func (l *layout) Push(_ context.Context, desc ocispec.Descriptor, data []byte) error {
	path := l.blobPath(desc.Digest)
	// Prepare made the folder of the usual algorithm.
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return replaceFile(path, data)
}

// PushStream implements Target.
func (l *layout) PushStream(_ context.Context, mediaType string, write func(io.Writer) error) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: mediaType}
	err := writeFile(filepath.Dir(l.blobPath(digest.FromBytes(nil))), func(f *os.File) (string, error) {
		sum := newSummer(&written{f: f})
		err := write(sum)
		desc.Digest, desc.Size = sum.digest(), sum.size
		return l.blobPath(desc.Digest), err
	})
	return desc, err
}

// Tag implements Target.
func (l *layout) Tag(ctx context.Context, desc ocispec.Descriptor, data []byte) error {
	if err := l.Push(ctx, desc, data); err != nil {
		return err
	}
	lock, err := os.Open(filepath.Join(l.dir, ocispec.ImageLayoutFile))
	if err != nil {
		return err
	}
	defer lock.Close() // and unlock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	desc.Annotations = map[string]string{ocispec.AnnotationRefName: l.tagOrDefault()}
	index, err := l.retag(desc)
	if err != nil {
		return err
	}
	return replaceFile(l.indexPath(), index)
}

// retag returns index.json with the tag pointing to desc. All else that is in it,
// known or not, stays.
func (l *layout) retag(desc ocispec.Descriptor) ([]byte, error) {
	index := map[string]json.RawMessage{
		"schemaVersion": json.RawMessage("2"),
		"mediaType":     json.RawMessage(`"` + ocispec.MediaTypeImageIndex + `"`),
	}
	data, err := readFile(l.indexPath())
	if err == nil {
		err = json.Unmarshal(data, &index)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", l.indexPath(), err)
	}
	var manifests, kept []json.RawMessage
	if raw, ok := index["manifests"]; ok {
		if err := json.Unmarshal(raw, &manifests); err != nil {
			return nil, fmt.Errorf("%s: %w", l.indexPath(), err)
		}
	}
	for _, raw := range manifests {
		var m ocispec.Descriptor
		if err := json.Unmarshal(raw, &m); err != nil {
			return nil, fmt.Errorf("%s: %w", l.indexPath(), err)
		}
		if m.Annotations[ocispec.AnnotationRefName] != l.tagOrDefault() {
			kept = append(kept, raw)
		}
	}
	entry, err := marshal(desc)
	if err != nil {
		return nil, err
	}
	if index["manifests"], err = marshal(append(kept, entry)); err != nil {
		return nil, err
	}
	return marshal(index)
}

// A written file is on its way to the disk while it is written, so that syncing it in the
// end takes little.
type written struct {
	f    *os.File
	n    int64 // bytes written
	sent int64 // of those, on their way
}

// sendBytes are sent to the disk at once.
const sendBytes = 16 << 20

func (w *written) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.n += int64(n)
	if part := w.n - w.sent; part >= sendBytes {
		// Only a hint: Sync is what counts, and says what fails.
		_ = unix.SyncFileRange(int(w.f.Fd()), w.sent, part, unix.SYNC_FILE_RANGE_WRITE)
		w.sent = w.n
	}
	return n, err
}

// tempPrefix starts the names of files that are not in their place yet.
const tempPrefix = ".convert-"

// replaceFile makes path hold data: all of it, durably, or as before.
func replaceFile(path string, data []byte) error {
	return writeFile(filepath.Dir(path), func(f *os.File) (string, error) {
		_, err := f.Write(data)
		return path, err
	})
}

// writeFile makes a file in dir, in its place only when it is whole and durable. write
// tells where that is.
func writeFile(dir string, write func(f *os.File) (path string, err error)) (err error) {
	f, err := os.CreateTemp(dir, tempPrefix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	path, err := write(f)
	if err == nil {
		err = errors.Join(f.Chmod(0o644), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
