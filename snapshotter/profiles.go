//go:build linux

package snapshotter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
)

const (
	// maxProfiles bounds the profiles that are kept: the oldest go.
	maxProfiles = 1000
	// earlySuffix ends the names of those of containers that ended early.
	earlySuffix = ".early"
)

// profiles keeps profiles (package layer) in a folder, by the chainID of the image.
type profiles struct{ dir string }

func (p profiles) path(chain digest.Digest, early bool) string {
	path := filepath.Join(p.dir, chain.Encoded())
	if early {
		path += earlySuffix
	}
	return path
}

// full says whether there is a profile of an image that needs no better one.
func (p profiles) full(chain digest.Digest) bool {
	_, err := os.Lstat(p.path(chain, false))
	return err == nil
}

// remove removes the profiles of an image, if there are any: the early one, and if said so the other.
func (p profiles) remove(chain digest.Digest, full bool) error {
	err := os.Remove(p.path(chain, true))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if !full {
		return err
	}
	if ferr := os.Remove(p.path(chain, false)); !errors.Is(ferr, os.ErrNotExist) {
		err = errors.Join(err, ferr)
	}
	return err
}

// get returns the profile of an image; the error is os.ErrNotExist if there is none.
func (p profiles) get(chain digest.Digest) ([]cid.Cid, error) {
	if err := checkChain(chain); err != nil {
		return nil, err
	}
	path := p.path(chain, !p.full(chain))
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	files, err := layer.DecodeProfile(b)
	if err != nil {
		return nil, fmt.Errorf("profile %s: %w", path, err)
	}
	return files, nil
}

// put keeps the profile of an image in place of the one there was. One of a container that
// ended early is told from others, also after a restart: a better one may come.
func (p profiles) put(chain digest.Digest, files []cid.Cid, early bool) error {
	if err := checkChain(chain); err != nil {
		return err
	}
	b, err := layer.EncodeProfile(files)
	if err != nil {
		return err
	}
	all, err := p.list()
	if err != nil {
		return err
	}
	for ; len(all) >= maxProfiles; all = all[:len(all)-1] {
		if err := p.remove(all[len(all)-1].Chain, true); err != nil {
			return err
		}
	}
	err = writeFile(p.path(chain, early), func(f *os.File) error {
		_, err := f.Write(b)
		return errors.Join(err, f.Sync()) // an empty file would be no profile, and be in the way
	})
	if err != nil || early {
		return err
	}
	return p.remove(chain, false)
}

func checkChain(chain digest.Digest) error {
	if err := chain.Validate(); err != nil || chain.Algorithm() != digest.SHA256 {
		return fmt.Errorf("%.80q is no chainID: want sha256: and 64 digits: %w", chain, errdefs.ErrInvalidArgument)
	}
	return nil
}

// A ProfileInfo says of a profile what can be said without reading it.
type ProfileInfo struct {
	Chain   digest.Digest // chainID of the image's topmost ipcs layer
	Layer   digest.Digest // of that layer; empty if no snapshot has it now
	Files   int
	Written time.Time
}

// list returns all profiles, the newest first.
func (p profiles) list() ([]ProfileInfo, error) {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return nil, err
	}
	var all []ProfileInfo
	for _, e := range entries {
		chain := digest.NewDigestFromEncoded(digest.SHA256, strings.TrimSuffix(e.Name(), earlySuffix))
		info, err := e.Info()
		if err != nil || chain.Validate() != nil {
			continue // removed meanwhile, or none of ours
		}
		if last := len(all) - 1; last >= 0 && all[last].Chain == chain {
			continue // names are sorted: this is the early one beside the other, after a crash
		}
		all = append(all, ProfileInfo{Chain: chain, Files: layer.ProfileFiles(info.Size()), Written: info.ModTime()})
	}
	slices.SortFunc(all, func(a, b ProfileInfo) int { return b.Written.Compare(a.Written) })
	return all, nil
}

// Profiles lists the profiles that were recorded or imported here, the newest first.
func (s *Snapshotter) Profiles(ctx context.Context) ([]ProfileInfo, error) {
	all, err := s.profiles.list()
	if err != nil {
		return nil, fmt.Errorf("list profiles: %w", err)
	}
	tops := make(map[digest.Digest]digest.Digest)
	err = s.ms.WithTransaction(ctx, false, func(ctx context.Context) error {
		return storage.WalkInfo(ctx, func(_ context.Context, info snapshots.Info) error {
			root, err := cid.Decode(info.Labels[labelRoot])
			if err != nil {
				return nil // an ordinary one
			}
			tops[digest.Digest(info.Labels[labelChain])], err = mediatype.LayerDigest(root)
			return err
		})
	})
	if err != nil && !errdefs.IsNotFound(err) { // there was never a snapshot
		return nil, fmt.Errorf("list profiles: %w", err)
	}
	for i := range all {
		all[i].Layer = tops[all[i].Chain]
	}
	return all, nil
}

// Profile returns the encoded profile of the image that name is of: the start of a chainID,
// or of the digest of its topmost ipcs layer, without "sha256:". An empty name is the
// newest profile.
func (s *Snapshotter) Profile(ctx context.Context, name string) ([]byte, error) {
	all, err := s.Profiles(ctx)
	if err != nil {
		return nil, err
	}
	name = strings.TrimPrefix(name, digest.SHA256.String()+":")
	var found []ProfileInfo
	for _, p := range all {
		if strings.HasPrefix(p.Chain.Encoded(), name) || p.Layer != "" && strings.HasPrefix(p.Layer.Encoded(), name) {
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("there is no profile of %.80q: %w", name, errdefs.ErrNotFound)
	}
	if len(found) > 1 && name != "" {
		return nil, fmt.Errorf("there are %d profiles of %q: give more digits: %w", len(found), name, errdefs.ErrInvalidArgument)
	}
	files, err := s.profiles.get(found[0].Chain)
	if err != nil {
		return nil, err
	}
	return layer.EncodeProfile(files)
}

// PutProfile keeps an encoded profile for an image, which need not be here.
func (s *Snapshotter) PutProfile(chain digest.Digest, profile []byte) error {
	files, err := layer.DecodeProfile(bytes.Clone(profile))
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := s.profiles.put(chain, files, false); err != nil {
		return fmt.Errorf("keep a profile: %w", err)
	}
	s.recorder.known(chain)
	return nil
}
