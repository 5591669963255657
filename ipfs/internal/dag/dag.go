// Package dag reads what the blocks of a node make up, for people and for tools of IPFS: paths,
// UnixFS files, and directories, sharded ones too. Nothing that containers read goes through
// here: that has indexes.
//
// The formats are boxo's business; this package gives it the node's blocks, and sees to it that
// what it starts ends. A Reader lives as long as one call of Read: whatever boxo's walks still
// fetch in the background when that is over is interrupted and waited for.
//
// # Memory
//
// A file is read with what boxo fetches ahead: at most fifteen nodes on each level of its DAG,
// so some MiB for files that are built as everybody does. A directory's entries are handed on
// as they come, windowSize at a time. Walk remembers 33 bytes of each block, and what is still
// to be visited.
//
// # Concurrency
//
// A Reader may be used by several goroutines.
package dag

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	bsfetcher "github.com/ipfs/boxo/fetcher/impl/blockservice"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/path"
	"github.com/ipfs/boxo/path/resolver"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/ipfs/go-unixfsnode"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime/multicodec"

	"github.com/hinshun/ipcs/ipfs"
)

const (
	// MaxPath is how long a path may be, in bytes, and MaxNames of how many names: finding the
	// end of one reads at least a block for each name.
	MaxPath  = 4096
	MaxNames = 256
)

var (
	// ErrPath says that a text is no path of IPFS, or none that is read here.
	ErrPath = errors.New("not a path of IPFS")
	// ErrNoLink says that a path leads nowhere.
	ErrNoLink = errors.New("no such path")
)

// A Source is where blocks come from: a node, or what of it is on this machine.
type Source interface {
	ipfs.Getter
	ipfs.Fetcher
}

// A Reader reads DAGs of a Source.
type Reader struct {
	src      Source
	serv     ipld.DAGService
	resolver resolver.Resolver
	running  sync.WaitGroup
}

// Read calls fn with a Reader of src. The context that fn gets ends with fn.
func Read(ctx context.Context, src Source, fn func(context.Context, *Reader) error) error {
	r := &Reader{src: src}
	r.serv = merkledag.NewReadOnlyDagService(r)
	config := bsfetcher.NewFetcherConfig(BlockService(src))
	config.PrototypeChooser = dagpb.AddSupportToChooser(bsfetcher.DefaultPrototypeChooser)
	r.resolver = resolver.NewBasicResolver(config.WithReifier(unixfsnode.Reify))
	ctx, cancel := context.WithCancel(ctx)
	defer r.running.Wait()
	defer cancel()
	return fn(ctx, r)
}

// ParsePath splits a path into a CID and names: a CID, CID/a/b, /ipfs/CID/a/b or an ipfs:// URI of
// one. The error is ErrPath, wrapped.
func ParsePath(text string) (root cid.Cid, names []string, err error) {
	if len(text) > MaxPath {
		return cid.Undef, nil, fmt.Errorf("%w: it is longer than %d bytes", ErrPath, MaxPath)
	}
	p, err := path.NewPathFromURI(text)
	if err != nil && !strings.HasPrefix(text, "/") {
		p, err = path.NewPath("/" + path.IPFSNamespace + "/" + text)
	}
	if err != nil {
		return cid.Undef, nil, fmt.Errorf("%w: %w", ErrPath, err)
	}
	fixed, err := path.NewImmutablePath(p)
	if err != nil || fixed.Namespace() != path.IPFSNamespace {
		return cid.Undef, nil, fmt.Errorf("%w: only paths below /ipfs/ are read here, not %q", ErrPath, text)
	}
	names = fixed.Segments()[2:]
	if len(names) > MaxNames {
		return cid.Undef, nil, fmt.Errorf("%w: it has more than %d names", ErrPath, MaxNames)
	}
	return fixed.RootCid(), names, nil
}

// Resolve returns the CID that a path leads to. The error is ErrPath or ErrNoLink, wrapped, or that
// of a block that could not be had.
func (r *Reader) Resolve(ctx context.Context, text string) (cid.Cid, error) {
	root, names, err := ParsePath(text)
	if err != nil || len(names) == 0 {
		return root, err
	}
	p, err := path.Join(path.FromCid(root), names...)
	if err != nil {
		return cid.Undef, fmt.Errorf("%w: %w", ErrPath, err)
	}
	fixed, err := path.NewImmutablePath(p)
	if err != nil {
		return cid.Undef, fmt.Errorf("%w: %w", ErrPath, err)
	}
	c, rest, err := r.resolver.ResolveToLastNode(ctx, fixed)
	var noLink *resolver.ErrNoLink
	if errors.As(err, &noLink) || err == nil && len(rest) > 0 {
		return cid.Undef, fmt.Errorf("%s: %w", text, ErrNoLink)
	}
	if err != nil {
		return cid.Undef, fmt.Errorf("%s: %w", text, err)
	}
	return c, nil
}

// HasPaths says whether there may be paths below a block: whether its codec is known here.
func HasPaths(c cid.Cid) bool {
	_, err := multicodec.LookupDecoder(c.Prefix().Codec)
	return err == nil
}

// Get implements ipld.NodeGetter.
func (r *Reader) Get(ctx context.Context, c cid.Cid) (ipld.Node, error) {
	b, err := getBlock(ctx, r.src, c)
	if err != nil {
		return nil, err
	}
	return decode(b)
}

// GetMany implements ipld.NodeGetter: it returns the nodes in the order in which they come.
func (r *Reader) GetMany(ctx context.Context, cids []cid.Cid) <-chan *ipld.NodeOption {
	out := make(chan *ipld.NodeOption, len(cids)+1) // nobody need take them
	r.running.Go(func() {
		defer close(out)
		err := fetch(ctx, r.src, cids, func(b blocks.Block) error {
			n, err := decode(b)
			if err == nil {
				out <- &ipld.NodeOption{Node: n}
			}
			return err
		})
		if err != nil {
			out <- &ipld.NodeOption{Err: err}
		}
	})
	return out
}

// decode parses a block of a UnixFS DAG.
func decode(b blocks.Block) (ipld.Node, error) {
	switch codec := b.Cid().Prefix().Codec; codec {
	case cid.DagProtobuf:
		return merkledag.DecodeProtobufBlock(b)
	case cid.Raw:
		return merkledag.DecodeRawBlock(b)
	default:
		return nil, fmt.Errorf("block %s: %w: its codec is %#x, not dag-pb or raw", b.Cid(), ErrNotUnixFS, codec)
	}
}
