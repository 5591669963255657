// Package dht finds nodes that have something, and tells of what this one has, in a distributed hash table that ipcs
// nodes make among themselves: libp2p's Kademlia DHT (https://github.com/libp2p/specs/tree/master/kad-dht) under a
// protocol of its own, so that it and IPFS's public DHT never meet.
//
// It has providers and nothing else: no values, no keys of peers, no names. There are no bootstrap peers: whoever is
// connected and speaks the protocol is a node of it. Nodes that are not reachable ask, and are not asked.
//
// # What hostile nodes can do
//
// A record says who has something, and its provider is who sent it; what a node answers when it is asked is its word
// alone. So a hostile member can name any number of providers with any addresses, and keep others from being found
// where it is asked first. What comes of that is bounded: 32 providers of one thing are taken from a lookup, 20 closer
// nodes of an answer are asked where Config says that they may be, and of what others tell a bounded number of records
// is kept (records). Members are to be known all the same: package embedded demands a private network or a list.
//
// # Concurrency
//
// All methods may be called concurrently. Close waits for the goroutines of the DHT; what it reads of peers ends with
// the streams, which the host's owner closes.
package dht
