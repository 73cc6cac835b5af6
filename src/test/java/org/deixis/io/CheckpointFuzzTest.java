package org.deixis.io;

import static org.deixis.io.HostileFiles.resource;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import com.sun.management.ThreadMXBean;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Random;
import org.deixis.core.InputException;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * Mutated files: each is read or refused with one line, and nothing else happens. {@code
 * -Dfuzz.files} says how many of each format (500), {@code -Dfuzz.seed} from which seed on (0); the
 * nightly profile takes 20,000. A failure names the seed that makes its file.
 */
class CheckpointFuzzTest {
  private static final int FILES = Integer.getInteger("fuzz.files", 500);
  private static final long SEED = Long.getLong("fuzz.seed", 0);

  /** Numbers at which lengths and offsets go wrong. */
  private static final long[] EDGES = {
    0,
    1,
    -1,
    2,
    7,
    8,
    255,
    256,
    0x7fff,
    0xffff,
    0x7fffffff,
    0x80000000L,
    0xffffffffL,
    0x100000000L,
    Long.MAX_VALUE,
    Long.MIN_VALUE,
    1L << 62,
    1L << 40,
    100_000_000,
    1_000_000
  };

  /** Opcodes and other bytes that mean something in one format or another. */
  private static final String MEANING =
      "\u0080\2\u0095}]()tuseacRbQqrhjKMJGNX\u008a\u008b\u0085\u0086\u0087\u0088\u0089\u0093\u0094.0"
          + "12{}[]\":,-9'<>|PK";

  @TempDir Path dir;

  @ParameterizedTest
  @CsvSource({
    "safetensors, /golden/checkpoints/swin.safetensors",
    "PyTorch zip, /io/torch_types.pth",
    "PyTorch views, /golden/checkpoints/strided_views.pth",
    "PyTorch legacy, /io/torch_types_legacy.pth",
    "NumPy pickle 2, /io/numpy_2.pkl",
    "NumPy pickle 5, /io/numpy_5.pkl",
    "npy, /io/columns.npy",
    "npz, /io/arrays.npz",
    "npz deflated, /io/arrays_deflated.npz",
    "index, index"
  })
  void mutatedFilesAreReadOrRefused(String format, String name) throws IOException {
    byte[] whole = name.equals("index") ? index() : resource(name);
    int read = 0;
    for (long seed = SEED; seed < SEED + FILES; seed++) {
      // Each under a name of its own: an earlier one may be mapped still.
      Path file = dir.resolve("mutant" + seed);
      byte[] mutant = mutate(whole, new Random(seed * 31 + format.hashCode()));
      Files.write(file, mutant);
      read += check(file, mutant.length, format + ", -Dfuzz.seed=" + seed) ? 1 : 0;
      Files.delete(file);
    }
    // Else the mutations are too mild or too harsh to find anything.
    System.out.printf("fuzz, %s: %d of %d files read%n", format, read, FILES);
    assertTrue(read > FILES / 100 && read < FILES - FILES / 100, read + " of " + FILES + " read");
  }

  private byte[] index() throws IOException {
    Files.write(dir.resolve("a.safetensors"), resource("/golden/ops/linear.safetensors"));
    return "{\"metadata\":{\"total_size\":1},\"weight_map\":{\"in.x\":\"a.safetensors\",\"out.y\":\"a.safetensors\"}}"
        .getBytes();
  }

  /** Whether the file is read. */
  private static boolean check(Path file, int size, String which) {
    ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    long allocated = threads.getThreadAllocatedBytes(Thread.currentThread().getId());
    long start = System.nanoTime();
    boolean read = false;
    try {
      HostileFiles.readAll(file);
      read = true;
    } catch (InputException e) {
      HostileFiles.assertOneLine(e.getMessage());
      assertTrue(e.getMessage().contains(file.getParent().toString()), e.getMessage());
    } catch (RuntimeException | Error e) {
      fail(which + " is neither read nor refused", e);
    }
    double seconds = (System.nanoTime() - start) / 1e9;
    allocated = threads.getThreadAllocatedBytes(Thread.currentThread().getId()) - allocated;
    assertTrue(seconds < 2, which + " takes " + seconds + " s");
    assertTrue(allocated < (8L << 20) + 100L * size, which + " allocates " + allocated + " bytes");
    return read;
  }

  private static byte[] mutate(byte[] whole, Random random) {
    byte[] bytes = whole.clone();
    for (int n = 1 + random.nextInt(4); n > 0; n--) {
      if (bytes.length == 0) {
        return bytes;
      }
      int at = place(bytes.length, random);
      switch (random.nextInt(9)) {
        case 0 -> bytes[at] ^= (byte) (1 << random.nextInt(8));
        case 1 -> bytes[at] = (byte) random.nextInt();
        case 2 -> bytes[at] = (byte) MEANING.charAt(random.nextInt(MEANING.length()));
        case 3 -> number(bytes, at, random);
        case 4 -> bytes = Arrays.copyOf(bytes, random.nextInt(bytes.length + 1));
        case 5 -> bytes = splice(bytes, at, new byte[0], random.nextInt(16));
        case 6 -> {
          int from = place(bytes.length, random);
          int length = Math.min(bytes.length - from, random.nextInt(64));
          bytes = splice(bytes, at, Arrays.copyOfRange(bytes, from, from + length), 0);
        }
        case 7 -> {
          int from = place(bytes.length, random);
          int length = Math.min(bytes.length - from, random.nextInt(64));
          bytes = splice(bytes, at, Arrays.copyOfRange(bytes, from, from + length), length);
        }
        default -> digit(bytes, at, random);
      }
    }
    return bytes;
  }

  /** Anywhere, or near the beginning or end, where the headers are. */
  private static int place(int length, Random random) {
    int near = Math.min(length, 4096);
    return switch (random.nextInt(4)) {
      case 0 -> random.nextInt(near);
      case 1 -> length - 1 - random.nextInt(near);
      case 2 -> random.nextInt(Math.min(length, 64));
      default -> random.nextInt(length);
    };
  }

  private static void number(byte[] bytes, int at, Random random) {
    int width = 1 << random.nextInt(4);
    if (at + width <= bytes.length) {
      ByteBuffer one = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN);
      one.putLong(0, EDGES[random.nextInt(EDGES.length)]);
      one.get(0, bytes, at, width);
    }
  }

  /** Changes the next digit in the text. */
  private static void digit(byte[] bytes, int at, Random random) {
    for (int i = at; i < bytes.length; i++) {
      if (bytes[i] >= '0' && bytes[i] <= '9') {
        bytes[i] = (byte) ('0' + random.nextInt(10));
        return;
      }
    }
  }

  /** Puts {@code piece} in the place of {@code dropped} bytes. */
  private static byte[] splice(byte[] bytes, int at, byte[] piece, int dropped) {
    int rest = Math.min(bytes.length, at + dropped);
    byte[] out = new byte[at + piece.length + bytes.length - rest];
    System.arraycopy(bytes, 0, out, 0, at);
    System.arraycopy(piece, 0, out, at, piece.length);
    System.arraycopy(bytes, rest, out, at + piece.length, bytes.length - rest);
    return out;
  }
}
