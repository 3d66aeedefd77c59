// A verifier of a roll that shares nothing with Chancery but the specifications: c2sp.org/tlog-tiles, tlog-checkpoint and
// signed-note, read by the Go project's own sumdb packages (Debian's golang-golang-x-mod-dev).
//
//	GO111MODULE=off GOPATH=/usr/share/gocode GOFLAGS= go build -o roll-verifier main.go
//	roll-verifier -key 'roll.example/1+…' -from https://…/roll|FOLDER [-state FILE] [-polls N] [-until SIZE]
//
// At each poll it takes the checkpoint, checks its signature, that the tree of the checkpoint before is its beginning, and
// that the new entries are in it. It says so in a line of JSON, and ends with a sentence and 1 at the first fault.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
	// A bundle of the longest entries.
	maxOctets = tileWidth * (2 + 65535)
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	key := flag.String("key", "", "the verifier key of the roll, name+id+base64")
	from := flag.String("from", "", "where the roll is: a URL or a folder")
	token := flag.String("token-file", "", "a file with a bearer token")
	ca := flag.String("ca-file", "", "a file with the trust anchor of the URL, PEM")
	state := flag.String("state", "", "a file that keeps the last checkpoint from run to run")
	every := flag.Int64("every", 1, "look at each n-th entry only")
	polls := flag.Int("polls", 1, "how often to look; 0 for ever")
	until := flag.Int64("until", 0, "end at a checkpoint of at least this size")
	interval := flag.Duration("interval", time.Second, "between two polls")
	flag.Parse()

	verifier, err := note.NewVerifier(*key)
	if err != nil {
		return fmt.Errorf("the key: %v", err)
	}
	source, err := openSource(*from, *token, *ca)
	if err != nil {
		return err
	}
	auditor := &auditor{verifier: verifier, source: source, every: *every, state: *state, out: json.NewEncoder(os.Stdout)}
	if err := auditor.load(); err != nil {
		return err
	}
	for poll := 1; ; poll++ {
		if err := auditor.poll(); err != nil {
			return err
		}
		if poll == *polls || *until > 0 && auditor.last.N >= *until {
			return nil
		}
		time.Sleep(*interval)
	}
}

// ---- what is checked

type auditor struct {
	verifier note.Verifier
	source   source
	every    int64
	state    string
	out      *json.Encoder
	last     tlog.Tree
}

type checked struct {
	Size        int64  `json:"size"`
	Root        string `json:"root"`
	From        int64  `json:"from"`
	Entries     int64  `json:"entries"`
	TilesRead   int    `json:"tilesRead"`
	BundlesRead int    `json:"bundlesRead"`
}

func (a *auditor) load() error {
	signed, err := os.ReadFile(a.state)
	if a.state == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	a.last, err = a.open(signed)
	return err
}

func (a *auditor) poll() error {
	signed, err := a.source.read("checkpoint")
	if err != nil {
		return fmt.Errorf("the checkpoint: %v", err)
	}
	tree, err := a.open(signed)
	if err != nil {
		return err
	}
	done := checked{Size: tree.N, Root: tree.Hash.String(), From: a.last.N}
	tiles := &tileReader{source: a.source, known: map[string][]byte{}}
	hashes := tlog.TileHashReader(tree, tiles)
	if err := a.checkGrowth(tree, hashes); err != nil {
		return err
	}
	for first := a.last.N / tileWidth; first*tileWidth < tree.N; first++ {
		found, err := a.checkBundle(tree, hashes, first)
		if err != nil {
			return err
		}
		done.BundlesRead++
		done.Entries += found
	}
	done.TilesRead = len(tiles.known)
	if a.state != "" {
		if err := os.WriteFile(a.state, signed, 0o600); err != nil {
			return err
		}
	}
	a.last = tree
	return a.out.Encode(done)
}

// The signature, and the three lines; lines of extensions are passed over.
func (a *auditor) open(signed []byte) (tlog.Tree, error) {
	opened, err := note.Open(signed, note.VerifierList(a.verifier))
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("the checkpoint: %v", err)
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != a.verifier.Name() {
		return tlog.Tree{}, errors.New("the checkpoint: it is not of the roll that the key is of")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return tlog.Tree{}, errors.New("the checkpoint: the size is no decimal")
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("the checkpoint: the root: %v", err)
	}
	return tlog.Tree{N: size, Hash: root}, nil
}

func (a *auditor) checkGrowth(tree tlog.Tree, hashes tlog.HashReader) error {
	if tree.N < a.last.N {
		return fmt.Errorf("the roll has shrunk from %d entries to %d", a.last.N, tree.N)
	}
	if tree.N == a.last.N && a.last.N > 0 && tree.Hash != a.last.Hash {
		return fmt.Errorf("the roll has two roots at size %d", tree.N)
	}
	if a.last.N == 0 || tree.N == a.last.N {
		return nil
	}
	proof, err := tlog.ProveTree(tree.N, a.last.N, hashes)
	if err != nil {
		return fmt.Errorf("the proof from %d to %d: %v", a.last.N, tree.N, err)
	}
	if err := tlog.CheckTree(proof, tree.N, tree.Hash, a.last.N, a.last.Hash); err != nil {
		return fmt.Errorf("the roll of %d entries has not grown out of that of %d: %v", tree.N, a.last.N, err)
	}
	return nil
}

// The new entries of a bundle: each has the leaf that the tiles have, which are checked up to the root; and for the first
// and the last of them the proof is made and checked as any other client would.
func (a *auditor) checkBundle(tree tlog.Tree, hashes tlog.HashReader, n int64) (int64, error) {
	width := min(tileWidth, tree.N-n*tileWidth)
	octets, isFull, err := readPart(a.source, path("entries", n, width), path("entries", n, tileWidth))
	if err != nil {
		return 0, fmt.Errorf("the entries from %d on: %v", n*tileWidth, err)
	}
	entries, rest, err := parseBundle(octets, width)
	if err == nil && len(rest) > 0 && (width == tileWidth || !isFull) {
		err = errors.New("the bundle does not end with its last entry")
	}
	if err != nil {
		return 0, fmt.Errorf("the entries from %d on: %v", n*tileWidth, err)
	}
	var wanted, indexes []int64
	for index := max(a.last.N, n*tileWidth); index < n*tileWidth+width; index++ {
		if index%a.every == 0 {
			wanted = append(wanted, index)
			indexes = append(indexes, tlog.StoredHashIndex(0, index))
		}
	}
	if len(wanted) == 0 {
		return 0, nil
	}
	leaves, err := hashes.ReadHashes(indexes)
	if err != nil {
		return 0, fmt.Errorf("the leaves from %d on: %v", n*tileWidth, err)
	}
	for i, index := range wanted {
		leaf := tlog.RecordHash(entries[index-n*tileWidth])
		if leaf != leaves[i] {
			return 0, fmt.Errorf("entry %d is not what its leaf says", index)
		}
		if i > 0 && i < len(wanted)-1 {
			continue
		}
		proof, err := tlog.ProveRecord(tree.N, index, hashes)
		if err != nil {
			return 0, fmt.Errorf("the proof of entry %d: %v", index, err)
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf); err != nil {
			return 0, fmt.Errorf("entry %d is not in the tree: %v", index, err)
		}
	}
	return int64(len(wanted)), nil
}

// The entries, and what follows them.
func parseBundle(octets []byte, width int64) ([][]byte, []byte, error) {
	entries := make([][]byte, 0, width)
	for int64(len(entries)) < width {
		if len(octets) < 2 {
			return nil, nil, fmt.Errorf("the bundle ends after %d of %d entries", len(entries), width)
		}
		end := 2 + int(octets[0])<<8 + int(octets[1])
		if len(octets) < end {
			return nil, nil, fmt.Errorf("the bundle ends in the midst of entry %d of %d", len(entries), width)
		}
		entries = append(entries, octets[2:end])
		octets = octets[end:]
	}
	return entries, octets, nil
}

// ---- where it comes from

// Go names a tile `tile/8/L/N.p/W`; C2SP leaves the height out, and calls the level of records `entries`.
func path(level string, n, width int64) string {
	name := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		name = fmt.Sprintf("x%03d/%s", n%1000, name)
	}
	if width < tileWidth {
		name = fmt.Sprintf("%s.p/%d", name, width)
	}
	return "tile/" + level + "/" + name
}

type tileReader struct {
	source source
	known  map[string][]byte
}

func (r *tileReader) Height() int { return tileHeight }

func (r *tileReader) SaveTiles([]tlog.Tile, [][]byte) {}

func (r *tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	all := make([][]byte, 0, len(tiles))
	for _, tile := range tiles {
		level := strconv.Itoa(tile.L)
		name := path(level, tile.N, int64(tile.W))
		octets, isKnown := r.known[name]
		if !isKnown {
			read, isFull, err := readPart(r.source, name, path(level, tile.N, tileWidth))
			if err != nil {
				return nil, err
			}
			if len(read) < tile.W*tlog.HashSize || !isFull && len(read) > tile.W*tlog.HashSize {
				return nil, fmt.Errorf("%s has %d octets", name, len(read))
			}
			octets = read[:tile.W*tlog.HashSize]
			r.known[name] = octets
		}
		all = append(all, octets)
	}
	return all, nil
}

// A partial tile may be gone once the full one is there; then it is that one.
func readPart(source source, name, full string) ([]byte, bool, error) {
	octets, err := source.read(name)
	if errors.Is(err, fs.ErrNotExist) && name != full {
		octets, err = source.read(full)
		return octets, true, err
	}
	return octets, false, err
}

type source interface {
	// fs.ErrNotExist for what is not there.
	read(name string) ([]byte, error)
}

func openSource(from, tokenFile, caFile string) (source, error) {
	if !strings.HasPrefix(from, "https://") && !strings.HasPrefix(from, "http://") {
		return folder(from), nil
	}
	site := &site{base: strings.TrimSuffix(from, "/")}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, err
		}
		anchors := x509.NewCertPool()
		if !anchors.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate", caFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: anchors, MinVersion: tls.VersionTLS12}
	}
	if tokenFile != "" {
		token, err := os.ReadFile(tokenFile)
		if err != nil {
			return nil, err
		}
		site.token = string(bytes.TrimSpace(token))
	}
	site.client = &http.Client{Transport: transport, Timeout: 30 * time.Second}
	return site, nil
}

type folder string

func (f folder) read(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(f), filepath.FromSlash(name)))
}

type site struct {
	base, token string
	client      *http.Client
}

func (s *site) read(name string) ([]byte, error) {
	request, err := http.NewRequest(http.MethodGet, s.base+"/"+name, nil)
	if err != nil {
		return nil, err
	}
	if s.token != "" {
		request.Header.Set("Authorization", "Bearer "+s.token)
	}
	response, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s is answered with %s", name, response.Status)
	}
	octets, err := io.ReadAll(io.LimitReader(response.Body, maxOctets+1))
	if err == nil && len(octets) > maxOctets {
		err = fmt.Errorf("%s is too long", name)
	}
	return octets, err
}
