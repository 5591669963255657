// Package kubo speaks the RPC of a Kubo daemon (/api/v0), from both ends.
//
// Client is an ipfs.Node over the RPC: of Kubo itself, or of ipcs-snapshotter, which
// answers the part of it that Handler implements. It believes nothing: every block
// that comes is verified, and of what a daemon may send in place of an answer only
// some kilobytes are read. Blocks go out as one CAR stream a Put, which costs one
// request however many there are; they come in with one request each, or for up to
// maxMany where the daemon is ipcs-snapshotter. Of single blocks Options.Requests are
// under way at a time, and no more than half of that for what nobody waits for.
//
// Node is Kubo as the node of a daemon: a Client that waits for a Kubo which is away, with
// the daemon's own store before it, and what is known of Kubo (State), which it looks at
// every two seconds.
//
// Handler serves a node to Client, and to stock clients such as ipfs --api. It is
// strict where Kubo is: POST only, nothing that a browser sent. All bodies stream:
// an import of any size is held to importBatch bytes of memory.
//
// Pins. A root may have several names here, and in the daemon of ipcs. Kubo has one
// name a root: a second Pin of the same root renames it, and then Unpin under the
// first name finds nothing to remove. Such a root stays pinned as long as the last
// name that was given is not removed.
//
// All may be used concurrently. Client and Handler keep no goroutines; Node has the one that
// looks at Kubo, and Close waits for it.
package kubo
