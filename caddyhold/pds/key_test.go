package pds

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
)

func TestKeyIsMadeOnceAndReadAgain(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "new", "signing.key")
	keys := make([]*atcrypto.PrivateKeyK256, 8)
	var all sync.WaitGroup
	for i := range keys {
		all.Go(func() {
			var err error
			if keys[i], err = LoadOrCreateKey(path); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, k := range keys {
		if k == nil || !k.Equal(keys[0]) {
			t.Fatal("there are several keys")
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("%d files", len(entries))
	}
	if data, _ := os.ReadFile(path); strings.TrimSpace(string(data)) != keys[0].Multibase() {
		t.Error("it is not written as multibase")
	}
}

func TestKeyIsReadInEveryForm(t *testing.T) {
	p256, err := atcrypto.GeneratePrivateKeyP256()
	if err != nil {
		t.Fatal(err)
	}
	raw := testKey.Bytes()
	tests := []struct {
		name    string
		content string
		valid   bool
	}{
		{"multibase", testKey.Multibase(), true},
		{"multibase with white space", "\n " + testKey.Multibase() + "\r\n", true},
		{"hex", hex.EncodeToString(raw), true},
		{"hex in capitals", strings.ToUpper(hex.EncodeToString(raw)) + "\n", true},
		{"raw", string(raw), true},
		{"empty", "", false},
		{"short hex", hex.EncodeToString(raw[1:]), false},
		{"short", string(raw[1:]), false},
		{"zeros", strings.Repeat("\x00", 32), false},
		{"another curve", p256.Multibase(), false},
		{"rubbish", "zzzz", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "signing.key")
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			key, err := LoadOrCreateKey(path)
			if (err == nil) != test.valid || test.valid && !key.Equal(testKey) {
				t.Error(err)
			}
			if err != nil && len(test.content) > 10 && strings.Contains(err.Error(), test.content[:10]) {
				t.Errorf("the error shows the key: %v", err)
			}
			if after, _ := os.ReadFile(path); string(after) != test.content {
				t.Error("the file was changed")
			}
		})
	}
	if _, err := LoadOrCreateKey(t.TempDir()); err == nil {
		t.Error("a directory is a key")
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte("z3vLVqpQveB1w7S3z4DzQ6R2nGkL5u6V1C9m8XvYQ2b7a"))
	f.Add([]byte(strings.Repeat("01", 32)))
	f.Add([]byte(strings.Repeat("x", 32)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if key, err := parseKey(data); err == nil && len(key.Bytes()) != privateKeyLen {
			t.Errorf("key of %d bytes", len(key.Bytes()))
		}
	})
}
