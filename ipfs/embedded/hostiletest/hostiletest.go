// Package hostiletest is peers that mean harm, for tests of what a node puts up with. They speak
// libp2p as others do, and each attack is one that a limit is there for.
//
// An attack goes on until its context ends, whatever the victim does about it: where it hangs up,
// the attacker connects again. Attacks may run beside each other.
package hostiletest

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	mh "github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	bitswapProtocol = protocol.ID("/ipfs/bitswap/1.2.0")
	blocksProtocol  = protocol.ID("/ipcs/blocks/1.0.0") // spec/transfer.md
	// A pause after each failure, since an attacker that only fails attacks nothing.
	pause = 5 * time.Millisecond
)

// An Attack is on a victim that has some blocks, and goes on until ctx ends.
type Attack func(ctx context.Context, victim peer.AddrInfo, has []cid.Cid) error

// Attacks are all that there are, by name.
func Attacks() map[string]Attack {
	return map[string]Attack{
		"Garbage":          repeated(4, garbage),
		"EndlessMessage":   repeated(60, endlessMessage),
		"ManyParts":        repeated(16, manyParts),
		"DripReaders":      repeated(4, dripReader),
		"DripWriters":      repeated(64, dripWriter),
		"MillionBitswap":   repeated(2, millionBitswap),
		"MillionBlocks":    repeated(2, millionBlocks),
		"NewsOfThousands":  repeated(4, newsOfThousands),
		"ConnectAndReset":  connectAndReset,
		"ThousandsStreams": repeated(1, thousandsOfStreams),
	}
}

// newHost is a peer of its own, which nobody can connect to.
func newHost() (host.Host, error) {
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		return nil, fmt.Errorf("start an attacker: %w", err)
	}
	return h, nil
}

// repeated runs n of these at once, each again and again, from one peer.
func repeated(n int, once func(ctx context.Context, h host.Host, victim peer.ID, has []cid.Cid) error) Attack {
	return func(ctx context.Context, victim peer.AddrInfo, has []cid.Cid) error {
		h, err := newHost()
		if err != nil {
			return err
		}
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				for ctx.Err() == nil {
					err := h.Connect(ctx, victim)
					if err == nil {
						err = once(ctx, h, victim.ID, has)
					}
					if err != nil {
						sleep(ctx, pause)
					}
				}
			})
		}
		<-ctx.Done()
		err = h.Close() // ends what reads and writes
		wg.Wait()
		return err
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// on runs fn on a new stream.
func on(ctx context.Context, h host.Host, p peer.ID, id protocol.ID, fn func(network.Stream) error) error {
	s, err := h.NewStream(ctx, p, id)
	if err != nil {
		return err
	}
	defer s.Reset()
	return fn(s)
}

// both runs fn on a stream of each protocol.
func both(ctx context.Context, h host.Host, p peer.ID, fn func(network.Stream) error) error {
	return errors.Join(on(ctx, h, p, bitswapProtocol, fn), on(ctx, h, p, blocksProtocol, fn))
}

func garbage(ctx context.Context, h host.Host, p peer.ID, _ []cid.Cid) error {
	return both(ctx, h, p, func(s network.Stream) error {
		b := make([]byte, 64<<10)
		_, _ = rand.Read(b) // it never fails
		_, err := s.Write(b)
		return err
	})
}

// endlessMessage announces the largest message, and sends all of it but for the end.
func endlessMessage(ctx context.Context, h host.Host, p peer.ID, _ []cid.Cid) error {
	return on(ctx, h, p, bitswapProtocol, func(s network.Stream) error {
		if _, err := s.Write(binary.AppendUvarint(nil, network.MessageSizeMax)); err != nil {
			return err
		}
		for range 63 {
			if _, err := s.Write(make([]byte, network.MessageSizeMax/64)); err != nil {
				return err
			}
		}
		sleep(ctx, time.Minute)
		return nil
	})
}

// manyParts sends a message of two million wants of nothing.
func manyParts(ctx context.Context, h host.Host, p peer.ID, _ []cid.Cid) error {
	return on(ctx, h, p, bitswapProtocol, func(s network.Stream) error {
		wants := make([]byte, network.MessageSizeMax-64)
		for i := 0; i < len(wants); i += 2 {
			wants[i] = byte(protowire.EncodeTag(1, protowire.BytesType)) // and a length of 0
		}
		_, err := s.Write(message(wants))
		if err == nil {
			_, err = s.Read(make([]byte, 1)) // until it is refused
		}
		return err
	})
}

// message is a bitswap message with this wantlist.
func message(wantlist []byte) []byte {
	body := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), wantlist)
	return append(binary.AppendUvarint(nil, uint64(len(body))), body...)
}

// want is one entry of a wantlist.
func want(c cid.Cid) []byte {
	e := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), c.Bytes())
	e = protowire.AppendVarint(protowire.AppendTag(e, 2, protowire.VarintType), 1) // priority
	e = protowire.AppendVarint(protowire.AppendTag(e, 5, protowire.VarintType), 1) // send DONT_HAVE
	return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), e)
}

// request is one of our protocol.
func request(verb byte, cids []cid.Cid) []byte {
	var body []byte
	for _, c := range cids {
		body = append(binary.AppendUvarint(append(body, verb, 0), c.Prefix().Codec), c.Hash()[2:]...)
	}
	return append(binary.AppendUvarint(nil, uint64(len(body))), body...)
}

// dripReader wants all that there is, over both protocols, and takes it byte by byte.
func dripReader(ctx context.Context, h host.Host, p peer.ID, has []cid.Cid) error {
	h.SetStreamHandler(bitswapProtocol, func(s network.Stream) { drip(ctx, s) })
	var list []byte
	for _, c := range has {
		list = append(list, want(c)...)
	}
	err := on(ctx, h, p, bitswapProtocol, func(s network.Stream) error {
		_, err := s.Write(message(list))
		return err
	})
	return errors.Join(err, on(ctx, h, p, blocksProtocol, func(s network.Stream) error {
		if _, err := s.Write(request(0, has[:min(len(has), 1000)])); err != nil {
			return err
		}
		return drip(ctx, s)
	}))
}

func drip(ctx context.Context, s network.Stream) error {
	for ctx.Err() == nil {
		if _, err := s.Read(make([]byte, 1)); err != nil {
			return err
		}
		sleep(ctx, 100*time.Millisecond)
	}
	return nil
}

// dripWriter sends the beginnings of messages, byte by byte.
func dripWriter(ctx context.Context, h host.Host, p peer.ID, _ []cid.Cid) error {
	return both(ctx, h, p, func(s network.Stream) error {
		for _, b := range binary.AppendUvarint(nil, 60<<10) {
			if _, err := s.Write([]byte{b}); err != nil {
				return err
			}
		}
		for i := 0; i < 100 && ctx.Err() == nil; i++ {
			if _, err := s.Write([]byte{0}); err != nil {
				return err
			}
			sleep(ctx, 100*time.Millisecond)
		}
		return nil
	})
}

// someCids are of blocks that nobody has.
func someCids(n int) []cid.Cid {
	digest := make([]byte, 32)
	_, _ = rand.Read(digest) // it never fails
	cids := make([]cid.Cid, n)
	for i := range cids {
		binary.BigEndian.PutUint64(digest, uint64(i))
		hash, err := mh.Encode(digest, mh.SHA2_256)
		if err != nil {
			panic(err) // of nothing but the length
		}
		cids[i] = cid.NewCidV1(cid.Raw, hash)
	}
	return cids
}

const (
	million = 1_000_000
	batch   = 1000
)

func millionBitswap(ctx context.Context, h host.Host, p peer.ID, _ []cid.Cid) error {
	h.SetStreamHandler(bitswapProtocol, func(s network.Stream) { _ = s.Reset() }) // no answer is wanted
	return on(ctx, h, p, bitswapProtocol, func(s network.Stream) error {
		for range million / batch {
			var list []byte
			for _, c := range someCids(batch) {
				list = append(list, want(c)...)
			}
			if _, err := s.Write(message(list)); err != nil {
				return err
			}
		}
		return nil
	})
}

func millionBlocks(ctx context.Context, h host.Host, p peer.ID, _ []cid.Cid) error {
	return on(ctx, h, p, blocksProtocol, func(s network.Stream) error {
		for range million / batch {
			if _, err := s.Write(request(0, someCids(batch))); err != nil {
				return err
			}
		}
		return nil
	})
}

// newsOfThousands wants news of as many blocks as it may, and of one again and again, waits for them for a
// while, and lets go.
func newsOfThousands(ctx context.Context, h host.Host, p peer.ID, _ []cid.Cid) error {
	const news = 3
	return on(ctx, h, p, blocksProtocol, func(s network.Stream) error {
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(io.Discard, s) }) // until it is reset
		defer wg.Wait()
		defer s.Reset()
		one := someCids(1)[0]
		for range 8 {
			if _, err := s.Write(request(news, append(someCids(batch/2), slices.Repeat([]cid.Cid{one}, batch/2)...))); err != nil {
				return err
			}
		}
		sleep(ctx, 500*time.Millisecond)
		return nil
	})
}

// connectAndReset is a new peer each time.
func connectAndReset(ctx context.Context, victim peer.AddrInfo, _ []cid.Cid) error {
	for ctx.Err() == nil {
		h, err := newHost()
		if err != nil {
			return err
		}
		if err = h.Connect(ctx, victim); err != nil {
			sleep(ctx, pause)
		}
		if err := h.Close(); err != nil {
			return err
		}
	}
	return nil
}

// thousandsOfStreams opens streams, says nothing on them, and lets go of none.
func thousandsOfStreams(ctx context.Context, h host.Host, p peer.ID, _ []cid.Cid) error {
	var streams []network.Stream
	defer func() {
		for _, s := range streams {
			_ = s.Reset()
		}
	}()
	for i := range 5000 {
		if i%2 == 0 { // not even the protocol
			if conns := h.Network().ConnsToPeer(p); len(conns) > 0 {
				if s, err := conns[0].NewStream(ctx); err == nil {
					streams = append(streams, s)
					_, _ = s.Write([]byte{19}) // so that it is there; it may be refused
				}
			}
			continue
		}
		s, err := h.NewStream(ctx, p, bitswapProtocol)
		if err != nil {
			continue
		}
		streams = append(streams, s)
		_, _ = s.Write([]byte{0x80, 0x80}) // it may be refused
	}
	sleep(ctx, 5*time.Second)
	return nil
}
