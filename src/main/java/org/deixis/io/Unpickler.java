package org.deixis.io;

import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import java.util.function.Function;
import org.deixis.core.InputException;

/**
 * An interpreter of Python's pickle format, protocols 0 to 5, as far as files of tensors use it.
 * Nothing in a file is ever run: a name is looked up in {@link PickleAllowList}, and what that does
 * not hold is refused by its name.
 *
 * <p>Bounds: every length is checked against the file before anything is allocated for it; the
 * stack, the memo and all containers together grow with the number of opcodes, and that is bounded.
 */
final class Unpickler {
  /**
   * Opcodes of one file: a tensor takes some fifty, so that this is fifty thousand tensors, as many
   * as a zip archive may have. At up to 70 bytes each it bounds the heap too.
   */
  static final int MAX_OPCODES = 2_500_000;

  /** Longest text that is decoded at once; a longer one is no name, and stays in the file. */
  private static final int MAX_TEXT = 4096;

  /** Longest whole number in bytes; PyTorch's magic number has ten. */
  private static final int MAX_NUMBER = 256;

  private static final int WINDOW = 1 << 28;

  private final MappedFile file;
  private final Function<Object, Object> persistent;
  private final long end;
  private ByteBuffer window;
  private long windowStart;

  private Object[] stack = new Object[64];
  private int depth;
  private int[] marks = new int[16];
  private int markCount;
  private Object[] memo = new Object[64];
  private int memoSize;
  private long opcodes;
  private final PickleAllowList allowed;

  /**
   * @param persistent makes the object that a persistent id stands for, PyTorch's storages
   */
  Unpickler(MappedFile file, long offset, long length, Function<Object, Object> persistent) {
    this.file = file;
    this.persistent = persistent;
    this.end = offset + length;
    this.allowed = new PickleAllowList(file, this::charge);
    window(offset);
  }

  private void window(long from) {
    windowStart = from;
    window = file.slice(from, Math.min(WINDOW, end - from)).order(ByteOrder.LITTLE_ENDIAN);
  }

  /** Offset in the file of the byte behind what was read. */
  long position() {
    return windowStart + window.position();
  }

  /**
   * The next object of the stream, up to its STOP.
   *
   * @throws InputException when the stream is cut off, damaged, or asks for what is not allowed
   */
  Object load() {
    depth = 0;
    markCount = 0;
    memoSize = 0;
    Arrays.fill(memo, null);
    while (true) {
      long at = position();
      int op = u1();
      charge(1);
      if (op == '.') {
        Object result = pop();
        if (depth != 0 || markCount != 0) {
          throw damaged("it stops with values left over");
        }
        return result;
      }
      step(op, at);
    }
  }

  private void charge(long instructions) {
    opcodes += instructions;
    if (opcodes > MAX_OPCODES) {
      throw file.refused(
          "the pickle has more than "
              + MAX_OPCODES
              + " instructions; a file of tensors has fewer, save the state dictionary alone");
    }
  }

  private void step(int op, long at) {
    switch (op) {
      case 0x80 -> {
        int protocol = u1();
        if (protocol > 5) {
          throw file.refused("pickle protocol " + protocol + "; protocols up to 5 are read");
        }
      }
      case 0x95 -> {
        long length = i8();
        if (length < 0 || length > end - position()) {
          throw damaged("a frame claims " + Long.toUnsignedString(length) + " bytes");
        }
      }
      case 'N' -> push(PickleValue.None.NONE);
      case 0x88 -> push(Boolean.TRUE);
      case 0x89 -> push(Boolean.FALSE);
      case 'K' -> push((long) u1());
      case 'M' -> push((long) u2());
      case 'J' -> push((long) i4());
      case 0x8a -> push(number(u1()));
      case 0x8b -> push(number(i4()));
      case 'G' -> push(Double.longBitsToDouble(Long.reverseBytes(i8())));
      case 'I', 'L', 'F' -> push(literal(op, line()));
      case 'X' -> push(text(i4() & 0xffffffffL));
      case 0x8c -> push(text(u1()));
      case 0x8d -> push(text(i8()));
      case 'B' -> push(bytes(i4() & 0xffffffffL));
      case 'C' -> push(bytes(u1()));
      case 0x8e, 0x96 -> push(bytes(i8()));
      case 'T' -> push(python2Text(i4()));
      case 'U' -> push(python2Text(u1()));
      case '(' -> mark();
      case '0' -> drop();
      case '1' -> popMark();
      case '2' -> push(peek());
      case ')' -> push(new PickleValue.Tuple());
      case 't' -> push(new PickleValue.Tuple(popMark()));
      case 0x85 -> push(new PickleValue.Tuple(popItems(1)));
      case 0x86 -> push(new PickleValue.Tuple(popItems(2)));
      case 0x87 -> push(new PickleValue.Tuple(popItems(3)));
      case ']', 0x8f -> push(new PickleValue.Sequence());
      case 'l', 0x91 -> {
        Object[] items = popMark();
        PickleValue.Sequence list = new PickleValue.Sequence();
        extend(list, items);
        push(list);
      }
      case 'a' -> {
        Object item = pop();
        sequence().add(item);
      }
      case 'e', 0x90 -> {
        Object[] items = popMark();
        extend(sequence(), items);
      }
      case '}' -> push(new PickleValue.Dictionary());
      case 'd' -> {
        Object[] items = popMark();
        PickleValue.Dictionary map = new PickleValue.Dictionary();
        put(map, items);
        push(map);
      }
      case 's' -> {
        Object[] items = popItems(2);
        put(dictionary(), items);
      }
      case 'u' -> {
        Object[] items = popMark();
        put(dictionary(), items);
      }
      case 'q' -> memoize(u1());
      case 'r' -> memoize(i4() & 0xffffffffL);
      case 'p' -> memoize(index(line()));
      case 0x94 -> memoize(memoSize);
      case 'h' -> push(recall(u1()));
      case 'j' -> push(recall(i4() & 0xffffffffL));
      case 'g' -> push(recall(index(line())));
      case 'c' -> push(allowed.find(line(), line()));
      case 0x93 -> {
        Object[] name = popItems(2);
        if (!(name[0] instanceof String module) || !(name[1] instanceof String global)) {
          throw damaged("a name that is looked up is not text");
        }
        push(allowed.find(module, global));
      }
      case 'R', 0x81 -> {
        Object[] call = popItems(2);
        push(allowed.call(call[0], call[1]));
      }
      case 'b' -> {
        Object state = pop();
        allowed.build(peek(), state);
      }
      case 'Q' -> push(persistent.apply(pop()));
      case 'P' -> push(persistent.apply(line()));
      default ->
          throw file.refused(
              "the pickle holds the instruction %s at offset %d; only tensors and plain containers are read"
                  .formatted(name(op), at));
    }
  }

  /** The opcodes that exist but are not interpreted, by the names of Python's pickletools. */
  private static String name(int op) {
    return switch (op) {
      case 'i' -> "INST (a call by name)";
      case 'o' -> "OBJ (a call by name)";
      case 0x92 -> "NEWOBJ_EX (a call)";
      case 0x82, 0x83, 0x84 -> "EXT (a name from a registry)";
      case 0x97, 0x98 -> "BUFFER (data outside the file)";
      case 'S' -> "STRING";
      case 'V' -> "UNICODE";
      default -> "0x%02x".formatted(op);
    };
  }

  private InputException damaged(String what) {
    return file.broken("its pickle is damaged near offset " + position() + ", " + what);
  }

  // What lies on the stack.

  private void push(Object value) {
    if (depth == stack.length) {
      stack = Arrays.copyOf(stack, 2 * depth);
    }
    stack[depth++] = value;
  }

  private int floor() {
    return markCount == 0 ? 0 : marks[markCount - 1];
  }

  private Object peek() {
    if (depth == floor()) {
      throw damaged("it takes a value where there is none");
    }
    return stack[depth - 1];
  }

  private Object pop() {
    Object top = peek();
    stack[--depth] = null;
    return top;
  }

  private Object[] popItems(int count) {
    if (depth - floor() < count) {
      throw damaged("it takes a value where there is none");
    }
    Object[] items = Arrays.copyOfRange(stack, depth - count, depth);
    Arrays.fill(stack, depth - count, depth, null);
    depth -= count;
    return items;
  }

  private void mark() {
    if (markCount == marks.length) {
      marks = Arrays.copyOf(marks, 2 * markCount);
    }
    marks[markCount++] = depth;
  }

  private Object[] popMark() {
    if (markCount == 0) {
      throw damaged("it ends a group that never began");
    }
    Object[] items = popItems(depth - floor());
    markCount--;
    return items;
  }

  /** POP: the top value, or the mark when nothing lies above it. */
  private void drop() {
    if (markCount > 0 && depth == floor()) {
      markCount--;
    } else {
      pop();
    }
  }

  private PickleValue.Sequence sequence() {
    if (peek() instanceof PickleValue.Sequence sequence) {
      return sequence;
    }
    throw damaged("it appends to what is no list");
  }

  private PickleValue.Dictionary dictionary() {
    if (peek() instanceof PickleValue.Dictionary map) {
      return map;
    }
    throw damaged("it sets an item of what is no dictionary");
  }

  private static void extend(PickleValue.Sequence list, Object[] items) {
    for (Object item : items) {
      list.add(item);
    }
  }

  private void put(PickleValue.Dictionary map, Object[] items) {
    if (items.length % 2 != 0) {
      throw damaged("a dictionary has a key without a value");
    }
    for (int i = 0; i < items.length; i += 2) {
      map.put(items[i], items[i + 1]);
    }
  }

  /** Pickles number their memo from 0 on; an index beyond that would only make us allocate. */
  private void memoize(long index) {
    if (index > opcodes) {
      throw damaged("it keeps a value under the number " + index);
    }
    if (index >= memo.length) {
      memo = Arrays.copyOf(memo, Math.max((int) index + 1, 2 * memo.length));
    }
    memoSize += memo[(int) index] == null ? 1 : 0;
    memo[(int) index] = peek();
  }

  private Object recall(long index) {
    Object value = index >= 0 && index < memo.length ? memo[(int) index] : null;
    if (value == null) {
      throw damaged("it asks for the kept value " + index + ", and there is none");
    }
    return value;
  }

  // What lies in the stream.

  private ByteBuffer need(int count) {
    if (window.remaining() < count) {
      if (end - position() < count) {
        throw file.broken("it ends within its pickle, at offset " + end);
      }
      window(position());
    }
    return window;
  }

  private int u1() {
    return need(1).get() & 0xff;
  }

  private int u2() {
    return need(2).getShort() & 0xffff;
  }

  private int i4() {
    return need(4).getInt();
  }

  private long i8() {
    return need(8).getLong();
  }

  /** Skips {@code length} bytes, which must be there. */
  private long skip(long length) {
    long from = position();
    if (length < 0 || length > end - from) {
      throw file.broken(
          "a value at offset %d claims %s bytes, and %d are left"
              .formatted(from, Long.toUnsignedString(length), end - from));
    }
    if (length <= window.remaining()) {
      window.position(window.position() + (int) length);
    } else {
      window(from + length);
    }
    return from;
  }

  private byte[] small(long length) {
    byte[] out = new byte[(int) length];
    need(out.length).get(out);
    return out;
  }

  private Object text(long length) {
    if (length < 0 || length > MAX_TEXT) {
      long from = skip(length);
      return new PickleValue.LongText(file, from, length);
    }
    return new String(small(length), StandardCharsets.UTF_8);
  }

  private Object bytes(long length) {
    long from = skip(length);
    return new PickleValue.Blob(file, from, length);
  }

  /** Python 2 made no difference between text and bytes. */
  private Object python2Text(long length) {
    return length < 0 || length > MAX_TEXT
        ? bytes(length)
        : new String(small(length), StandardCharsets.ISO_8859_1);
  }

  private Object number(int length) {
    if (length < 0 || length > MAX_NUMBER) {
      throw damaged("a whole number claims " + (length & 0xffffffffL) + " bytes");
    }
    byte[] little = small(length);
    byte[] big = new byte[Math.max(1, length)];
    for (int i = 0; i < length; i++) {
      big[length - 1 - i] = little[i];
    }
    BigInteger value = new BigInteger(big);
    return value.bitLength() < 64 ? (Object) value.longValue() : value;
  }

  /** Text up to the end of a line, as protocol 0 writes names and numbers. */
  private String line() {
    StringBuilder line = new StringBuilder();
    for (int c = u1(); c != '\n'; c = u1()) {
      if (line.length() == MAX_NUMBER) {
        throw damaged("a name or number has no end");
      }
      line.append((char) c);
    }
    return line.toString();
  }

  private Object literal(int op, String text) {
    try {
      if (op == 'F') {
        return Double.valueOf(text);
      }
      if (op == 'I' && (text.equals("00") || text.equals("01"))) {
        return text.equals("01");
      }
      BigInteger value = new BigInteger(text.endsWith("L") ? text.replace("L", "") : text);
      return value.bitLength() < 64 ? (Object) value.longValue() : value;
    } catch (NumberFormatException e) {
      throw damaged("'" + Lines.of(text) + "' is no number");
    }
  }

  private long index(String text) {
    Object value = literal('I', text);
    if (value instanceof Long index && index >= 0) {
      return index;
    }
    throw damaged("'" + Lines.of(text) + "' is no number of a kept value");
  }

  /** A list's, set's or tuple's items; none of what is neither. */
  static List<Object> items(Object value) {
    if (value instanceof PickleValue.Sequence list) {
      return list.items();
    }
    return value instanceof PickleValue.Tuple tuple ? tuple.items() : List.of();
  }
}
