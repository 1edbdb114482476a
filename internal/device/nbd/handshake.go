package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// The handshake. All numbers are big-endian.
//
//	server  u64 "NBDMAGIC", u64 "IHAVEOPT", u16 flags
//	client  u32 flags
//	client  u64 "IHAVEOPT", u32 option, u32 length, data          here: GO with the name of the export
//	server  u64 magic, u32 option, u32 type, u32 length, data     any number of INFO, then ACK or an error
const (
	magicServer = 0x4e42444d41474943
	magicOption = 0x49484156454f5054
	magicReply  = 0x0003e889045565a9

	flagFixedNewstyle = 1 << 0

	optionGo = 7

	replyAck   = 1
	replyInfo  = 3
	replyError = 1 << 31

	infoExport = 0
	infoBlock  = 3

	maxReply = 64 << 10 // bytes of data in a reply
	maxBlock = 64 << 10 // largest block that a server may insist on
	maxName  = 4096
)

// What an export can do: bits of its transmission flags.
const (
	flagReadOnly = 1 << 1
	flagFlush    = 1 << 2
	flagTrim     = 1 << 5
)

// export is what the server tells about one.
type export struct {
	size  int64
	flags uint16
	block int64 // requests must consist of whole blocks
}

func (e export) has(flag uint16) bool { return e.flags&flag != 0 }

// handshake asks for an export.
func handshake(c io.ReadWriter, name string) (export, error) {
	var hello [18]byte
	if _, err := io.ReadFull(c, hello[:]); err != nil {
		return export{}, fmt.Errorf("no greeting: %w", err)
	}
	be := binary.BigEndian
	if be.Uint64(hello[:]) != magicServer || be.Uint64(hello[8:]) != magicOption {
		return export{}, errors.New("this is no NBD server, or one too old")
	}
	if be.Uint16(hello[16:])&flagFixedNewstyle == 0 {
		return export{}, errors.New("the server is too old")
	}
	if len(name) > maxName {
		return export{}, errors.New("the name is too long")
	}
	b := be.AppendUint32(nil, flagFixedNewstyle)
	b = be.AppendUint64(b, magicOption)
	b = be.AppendUint32(b, optionGo)
	b = be.AppendUint32(b, uint32(4+len(name)+2+2))
	b = be.AppendUint32(b, uint32(len(name)))
	b = append(b, name...)
	b = be.AppendUint16(b, 1) // one question: the sizes of blocks
	b = be.AppendUint16(b, infoBlock)
	if _, err := c.Write(b); err != nil {
		return export{}, err
	}
	return readInfo(c)
}

// readInfo reads the replies to GO.
func readInfo(r io.Reader) (export, error) {
	e := export{size: -1, block: 1}
	for range 100 { // far more than there are kinds of information
		typ, data, err := readReply(r)
		switch {
		case err != nil:
			return export{}, err
		case typ&replyError != 0:
			return export{}, refusal(typ, data)
		case typ == replyAck && e.size >= 0:
			return e, nil
		case typ == replyAck:
			return export{}, errors.New("the server did not tell the size")
		case typ == replyInfo:
			if err := e.learn(data); err != nil {
				return export{}, err
			}
		}
	}
	return export{}, errors.New("the server does not come to an end")
}

func readReply(r io.Reader) (typ uint32, data []byte, err error) {
	var head [20]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	be := binary.BigEndian
	length := be.Uint32(head[16:])
	if be.Uint64(head[:]) != magicReply || be.Uint32(head[8:]) != optionGo || length > maxReply {
		return 0, nil, errors.New("the server does not keep to the protocol")
	}
	data = make([]byte, length)
	_, err = io.ReadFull(r, data)
	return be.Uint32(head[12:]), data, err
}

// learn takes in one INFO reply; kinds that nobody asked for are let pass.
func (e *export) learn(data []byte) error {
	be := binary.BigEndian
	if len(data) < 2 {
		return errors.New("an information of the server is too short")
	}
	kind, data := be.Uint16(data), data[2:]
	switch {
	case kind == infoExport && len(data) >= 10:
		size := be.Uint64(data)
		if size > math.MaxInt64 {
			return fmt.Errorf("an export of %d bytes", size)
		}
		e.size, e.flags = int64(size), be.Uint16(data[8:])
	case kind == infoBlock && len(data) >= 12:
		block := be.Uint32(data)
		if block == 0 || block > maxBlock || block&(block-1) != 0 {
			return fmt.Errorf("blocks of %d bytes", block)
		}
		e.block = int64(block)
	}
	return nil
}

// refusal tells why the server does not give the export.
func refusal(typ uint32, data []byte) error {
	why := map[uint32]string{1: "it does not know the option GO", 2: "forbidden", 5: "it wants TLS, which is not supported",
		6: "no such export", 7: "it is shutting down"}[typ&^replyError]
	if why == "" {
		why = fmt.Sprintf("error %d", typ&^replyError)
	}
	if len(data) > 0 {
		why += fmt.Sprintf(" (%.200q)", data)
	}
	return fmt.Errorf("the server refuses: %s", why)
}
