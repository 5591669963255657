// Package transfer is the protocol by which ipcs nodes move blocks in bulk; spec/transfer.md
// has its bytes. It knows streams, and nothing of who is at their other end.
//
// On a stream one side wants blocks and the other serves them. A want is answered once: with
// the block, or that it is not here; one for news waits after that until the block has come, which
// whoever stores blocks tells the server (Arrived). Wants have a rank, and the server answers in the order
// of ranks, and of arrival within one; so what somebody waits for overtakes what is read
// ahead. Blocks travel in frames. Small ones of one rank share a frame, whatever of them has
// gathered, since together they compress better; large ones have a frame of their own.
//
// # When frames are compressed
//
// The server may have a block in compressed form (Forms): then it sends that. Otherwise it
// compresses at the fastest level if that is faster than the stream takes bytes, and sends the
// bytes as they are if it is not (see pace). What it compressed of a large block is offered to
// Forms.
//
// # Concurrency and memory
//
// A Server may serve any number of streams. Each has one goroutine that reads wants, one that gathers news, and
// two preparers that read, compress and write one frame each at a time, of which the second works on
// maxSecond streams at once at most. So the memory is bounded by the number of streams. A peer that
// does not read is given up after writeTimeout, one that reads slowly after frameTimeout. A Client is used by one goroutine that sends and one that
// receives; what it is sent is at most what it asked for, in frames of at most maxFrame.
package transfer
