// Package embedded runs an IPFS node in this process: a store on this machine, and our own
// protocol (package transfer) or bitswap with configured peers over libp2p (TCP, noise, yamux, nothing else: no
// public DHT, no relay, no NAT traversal, no ping; a private DHT and mDNS if Config says so).
//
// # Getting blocks
//
// What the store does not have is asked of the connected peers by the exchange.
// There is one want for a block in the whole node, however many callers wait for
// it, and it lives as long as one of them does. At most maxWants wants are on the
// wire at a time, and an eighth of them where a peer speaks bitswap alone; beyond 1,024 a stock
// bitswap server drops wants without a word.
//
// A want is first sent as WANT-BLOCK to one peer: one that said it has the block,
// else the one with the shortest queue, where recent misses count as queue. When it
// does not have it, the next is asked, and all others with WANT-HAVE at the same
// time; when a quarter of the wants lately went to a peer that had not the block, as where an image lies
// scattered over many, the others are asked whether they have it from the start. A peer that goes silent, or that serves many later wants first, keeps the
// want, but another is asked as well. When all have said no, the want stays in
// their lists (a bitswap server sends the block when it gets it), and is asked
// again at growing intervals. A want fails with NotFoundError after Config.Timeout
// without progress.
//
// This is the client half of bitswap 1.2. The one in boxo waits 20 ms between two
// messages to a peer, which no option changes, and so allows 50 dependent reads a
// second; a mount that is read lazily makes thousands. The messages, the network
// and the server are boxo's.
//
// # Other ipcs nodes
//
// Whether a peer speaks our own protocol is found out when it connects. Then the wants that are
// given to it go over a stream of that instead, each with the rank of its request, and the answers
// mean what those of bitswap mean. Only what all have said no to is put on their bitswap
// wantlists, too, so that they send it when they get it. When a stream breaks, the peer is
// spoken to over bitswap for two seconds, and from the fourth time in a row for twice as long as
// the time before, up to four minutes. A server that has too many streams gives up the one that has
// been idle for the longest time.
//
// A peer that has nothing left to send takes over half of what the busiest other one owes, of that
// what was wanted last and is not urgent; so no list waits long for a slow peer. What a peer says it has is asked of it in place of one that
// owes more than twice as many, or that is not known to have it where blocks are scattered. There,
// those who have not got a block yet tell when they do, and what is one of many is not asked of a
// peer that owes much, but held back (hold.go): so many machines that get one image at the same time
// have most of it from each other. They serve leaves of files that are incomplete, too (ServeAlso). A block
// that comes from both all the same is taken from the first.
//
// Blocks that are Put are compressed in the background (packer) if there is a place for the
// forms (Config.Forms).
//
// # Peers
//
// Configured peers are kept connected: dialled at once, again with growing, jittered
// delays up to five seconds, at once when a connection breaks, and twice a second
// while anybody waits for a block. bitswap carries the bytes of a block and not its
// CID, so that wrong bytes arrive as a block that nobody wanted. A peer that sends
// maxBad messages with such blocks, or breaks our protocol as often, is disconnected and neither dialled nor accepted
// for Config.BanTime. In the first seconds after a restart under the same identity they
// are not counted, since they may be answers to what an earlier life of the node wanted.
//
// Others are known by name, and dialled when blocks are wanted that nobody who is connected has: those that images name
// (Node.Hint), that routers and the DHT (Config.DHT) say have a layer of Config.Roots, and that are heard of on the links
// (Config.MDNS). The DHT sees a host that bounds messages, time and dials (dhtHost); a DHT for all is refused.
//
// # Concurrency
//
// All methods may be called concurrently. Open starts one goroutine for each
// configured peer, one for each source that is told of what is here, one to three for each connected peer (they write the messages, and write
// and read the stream of our protocol), one that compresses, and one
// that watches for wants that stall; Close ends mDNS first, and waits for all of them, then for the DHT and for what is being
// served, then for the bitswap server, then for libp2p.
package embedded
