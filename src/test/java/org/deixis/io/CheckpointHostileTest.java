package org.deixis.io;

import static org.deixis.io.HostileFiles.refused;
import static org.deixis.io.HostileFiles.resource;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.zip.Deflater;
import java.util.zip.DeflaterOutputStream;
import org.deixis.core.InputException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.DisabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Broken and hostile files of every format: one line each, soon, and without a large allocation.
 */
class CheckpointHostileTest {
  @TempDir Path dir;

  @ParameterizedTest
  @ValueSource(
      strings = {
        "/golden/checkpoints/swin.safetensors",
        "/golden/checkpoints/swin_zip.pth",
        "/golden/checkpoints/swin_zip_nested.pth",
        "/golden/checkpoints/swin_legacy.pth",
        "/golden/checkpoints/bert_legacy_names.bin",
        "/golden/checkpoints/swin_numpy.pkl",
        "/golden/checkpoints/strided_views.pth",
        "/io/numpy_5.pkl",
        "/io/arrays.npz",
        "/io/arrays_deflated.npz",
        "/io/columns.npy"
      })
  void aCutFileIsRefusedWhereverItIsCut(String name) throws IOException {
    byte[] whole = resource(name);
    for (int i = 0; i < 16; i++) {
      refused(dir, "cut" + i, Arrays.copyOf(whole, (int) ((long) whole.length * i / 16)), "");
    }
    refused(dir, "last", Arrays.copyOf(whole, whole.length - 1), "");
  }

  private static byte[] safetensors(long length, String header, int data) {
    byte[] json = header.getBytes(StandardCharsets.UTF_8);
    return ByteBuffer.allocate(8 + json.length + data)
        .order(ByteOrder.LITTLE_ENDIAN)
        .putLong(length)
        .put(json)
        .array();
  }

  private void header(String header, String words) throws IOException {
    refused(dir, "header", safetensors(header.length(), header, 16), words);
  }

  @Test
  void safetensorsHeadersAreNotBelieved() throws IOException {
    for (long length :
        new long[] {Long.MIN_VALUE, Long.MAX_VALUE, -1, 0, 1, 99_999_999, 1L << 40}) {
      refused(dir, "length", safetensors(length, "{}", 16), "claims");
    }
    String t = "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[%s]}";
    header("{\"a\":" + t.formatted("0,8") + ",\"b\":" + t.formatted("4,12") + "}", "overlaps");
    header("{\"a\":" + t.formatted("0,8") + ",\"a\":" + t.formatted("8,16") + "}", "twice");
    header("{\"a\":" + t.formatted("12,20") + "}", "16 bytes of data");
    header("{\"a\":" + t.formatted("-8,0") + "}", "lies at");
    header("{\"a\":" + t.formatted("8,0") + "}", "lies at");
    header("{\"a\":" + t.formatted("0,9223372036854775808") + "}", "no array has");
    header("{\"a\":" + t.formatted("0,8.0") + "}", "no array has");
    header("{\"a\":" + t.formatted("0,8,9") + "}", "lacks");
    header("{\"a\":" + t.formatted("0,4") + "}", "is given 4 bytes");
    header("{\"a\":" + t.replace("[2]", "[1" + ",1".repeat(64) + "]").formatted("0,4") + "}", "");
    header("{\"a\":" + t.replace("F32", "C128").formatted("0,16") + "}", "unknown type 'C128'");
    header("{\"a\\nb\":" + t.replace("F32", "\\u001b").formatted("0,16") + "}", "'a?b'");
    header("{\"a\":" + t.replace("F32", "C64").formatted("0,8") + "}", "is given 8 bytes");
    header("{\"a\":" + t.replace("F32", "F4").formatted("0,2") + "}", "is given 2 bytes");
    String huge = "[2147483647,2147483647,2147483647,2147483647]";
    header("{\"a\":" + t.replace("[2]", huge).formatted("0,8") + "}", "too large");
    String nothing = "[0,2147483647,2147483647,2147483647]";
    header("{\"a\":" + t.replace("[2]", nothing).formatted("0,0") + "}", "too large");
    header("{\"a\":" + t.replace("\"F32\"", "{\"F32\":[1]}").formatted("0,8") + "}", "no text");
    header("{\"a\":" + t.replace("\"F32\"", "[\"F32\"]").formatted("0,8") + "}", "no text");
    header("{\"a\":7}", "lacks");
    header("{\"a\":{}}", "unknown type");
    header("{\"__metadata__\":{\"a\":{}}}", "metadata");
    header("{\"a\":" + "[".repeat(50) + "]".repeat(50) + "}", "");
    header("{\"a\":", "not JSON");
    header("{} x", "not JSON");
    header("{}{}", "goes on");
  }

  @Test
  void aHeaderOfNothingButSmallThingsTakesNoTree() throws IOException {
    String arrays = "{\"a\":[" + "[],".repeat(10_000_000) + "[]]}";
    refused(dir, "arrays", safetensors(arrays.length(), arrays, 0), "lacks");
    String inside = "{\"a\":{\"x\":[" + "[],".repeat(5_000_000) + "[]]}}";
    refused(dir, "inside", safetensors(inside.length(), inside, 0), "unknown type");
    StringBuilder many = new StringBuilder("{");
    for (int i = 0; i < 200_000; i++) {
      many.append("\"" + i + "\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},");
    }
    many.setCharAt(many.length() - 1, '}');
    refused(dir, "many", safetensors(many.length(), many.toString(), 0), "more than 100000");
    StringBuilder metadata = new StringBuilder("{\"__metadata__\":{");
    for (int i = 0; i < 200_000; i++) {
      metadata.append("\"" + i + "\":\"\",");
    }
    metadata.setCharAt(metadata.length() - 1, '}');
    refused(dir, "metadata", safetensors(metadata.length() + 1, metadata + "}", 0), "metadata");
  }

  private static Pickles tensor(String storage, String key, int elements, String view) {
    return Pickles.protocol(2)
        .ascii("}")
        .text("x")
        .ascii("ctorch._utils\n_rebuild_tensor_v2\n((")
        .text("storage")
        .ascii("ctorch\n" + storage + "\n")
        .text(key)
        .text("cpu")
        .ascii("J")
        .i4(elements)
        .ascii("tQ" + view + "\u0089ccollections\nOrderedDict\n)RtRs.");
  }

  private byte[] zip(Pickles pickle, byte[] storage) {
    return new Pickles.Zip().entry("a/data.pkl", pickle.array()).entry("a/data/0", storage).array();
  }

  private static String view(int offset, int size, int stride) {
    byte[] b = new Pickles().ascii("J").i4(offset).ascii("J").i4(size).array();
    byte[] s = new Pickles().bytes(0x85).ascii("J").i4(stride).bytes(0x85).array();
    return new String(b, StandardCharsets.ISO_8859_1) + new String(s, StandardCharsets.ISO_8859_1);
  }

  @Test
  void viewsStayWithinTheirStorage() throws IOException {
    byte[] data = new byte[16];
    Path good = dir.resolve("good");
    Files.write(good, zip(tensor("FloatStorage", "0", 4, view(1, 3, 1)), data));
    HostileFiles.readAll(good);
    String[] views = {
      view(2, 3, 1),
      view(0, 5, 1),
      view(0, 3, 2),
      view(-1, 1, 1),
      view(3, 2, -1),
      view(0, -1, 1),
      view(Integer.MAX_VALUE, 1, 1),
      view(0, Integer.MAX_VALUE, Integer.MAX_VALUE),
      view(4, 1, 1)
    };
    for (String view : views) {
      refused(dir, "view", zip(tensor("FloatStorage", "0", 4, view), data), "");
    }
    // One element that claims to be seen two thousand million times.
    byte[] spread = zip(tensor("FloatStorage", "0", 4, view(0, Integer.MAX_VALUE, 0)), data);
    refused(dir, "spread", spread, "larger than the file");
    refused(dir, "more", zip(tensor("FloatStorage", "0", 5, view(0, 1, 1)), data), "5 elements");
    refused(dir, "wide", zip(tensor("DoubleStorage", "0", 4, view(0, 1, 1)), data), "4 elements");
    refused(dir, "key", zip(tensor("FloatStorage", "1", 4, view(0, 1, 1)), data), "missing");
    refused(dir, "up", zip(tensor("FloatStorage", "../0", 4, view(0, 1, 1)), data), "missing");
    refused(dir, "type", zip(tensor("ComplexFloatStorage", "0", 2, view(0, 1, 1)), data), "asks");
    refused(dir, "minus", zip(tensor("FloatStorage", "0", -4, view(0, 0, 1)), data), "-4");
  }

  /** Ten thousand tensors that all are the same megabyte. */
  @Test
  void sharingIsBounded() throws IOException {
    Pickles p =
        Pickles.protocol(2).ascii("ctorch._utils\n_rebuild_tensor_v2\nq\0((").text("storage");
    p.ascii("ctorch\nByteStorage\n").text("0").text("cpu").ascii("J").i4(1 << 20).ascii("tQ");
    p.raw(view(0, 1 << 20, 1).getBytes(StandardCharsets.ISO_8859_1)).ascii("\u0089Ntq\1");
    p.ascii("00](").ascii("h\0h\1R", 10_000).ascii("e.");
    refused(dir, "shared", zip(p, new byte[1 << 20]), "share so many bytes");
  }

  @Test
  void zipsAreNotBelieved() throws IOException {
    byte[] data = new byte[16];
    byte[] pickle = tensor("FloatStorage", "0", 4, view(0, 4, 1)).array();
    Pickles.Zip zip = new Pickles.Zip().entry("a/data.pkl", pickle);
    for (String name : new String[] {"../x", "/x", "a/../../x", "C:\\x", "..", "a\\..\\x"}) {
      byte[] outside = new Pickles.Zip().entry("a/data.pkl", pickle).entry(name, data).array();
      refused(dir, "outside", outside, "leads outside");
    }
    refused(
        dir,
        "shift",
        new Pickles.Zip().entry("a/data.pkl", pickle, 0, pickle.length, 1).array(),
        "where");
    refused(
        dir, "twice", new Pickles.Zip().entry("a.npy", data).entry("a.npy", data).array(), "twice");
    byte[] over = new Pickles.Zip().entry("a.npy", data).entry("b.npy", data, 0, 16, -51).array();
    refused(dir, "over", over, "overlap");
    refused(dir, "two", new Pickles.Zip().entry("a.npy", data, 0, 99, 0).array(), "two sizes");
    refused(dir, "none", new Pickles.Zip().array(), "");
    refused(dir, "else", new Pickles.Zip().entry("readme", data).array(), "without a data.pkl");
    byte[] pickles =
        new Pickles.Zip().entry("a/data.pkl", pickle).entry("b/data.pkl", pickle).array();
    refused(dir, "pickles", pickles, "2 entries named data.pkl");
    byte[] big = zip.entry("a/data/0", data).entry("a/byteorder", "big".getBytes()).array();
    refused(dir, "big", big, "big-endian");
    byte[] packed = deflated(pickle);
    byte[] small = new Pickles.Zip().entry("a/data.pkl", packed, 8, pickle.length, 0).array();
    refused(dir, "packed", small, "compressed");
    byte[] storage =
        new Pickles.Zip()
            .entry("a/data.pkl", pickle)
            .entry("a/data/0", deflated(data), 8, data.length, 0)
            .array();
    refused(dir, "storage", storage, "compressed");
    refused(dir, "claimed", new Pickles.Zip().entry("a.npy", data).array(100), "directory ends");
    refused(dir, "claimed", new Pickles.Zip().entry("a.npy", data).array(1L << 62), "entries");
    refused(dir, "claimed", new Pickles.Zip().entry("a.npy", data).array(-1), "");
  }

  @Test
  void aHundredThousandEntriesAreRefused() throws IOException {
    Pickles.Zip zip = new Pickles.Zip();
    for (int i = 0; i < 100_000; i++) {
      zip.entry("a/data/" + i, new byte[0]);
    }
    refused(dir, "many", zip.array(100_000), "100000 entries");
  }

  private static byte[] deflated(byte[] plain) throws IOException {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    try (DeflaterOutputStream packed =
        new DeflaterOutputStream(out, new Deflater(Deflater.BEST_COMPRESSION, true))) {
      packed.write(plain);
    }
    return out.toByteArray();
  }

  private static byte[] npy(int version, String header, int data) {
    Pickles p = new Pickles().bytes(0x93).ascii("NUMPY").bytes(version, 0);
    if (version == 1) {
      p.bytes(header.length(), header.length() >> 8);
    } else {
      p.i4(header.length());
    }
    return p.ascii(header).raw(new byte[data]).array();
  }

  private static String describe(String type, String shape) {
    return "{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n".formatted(type, shape);
  }

  @Test
  void arraysAreNotBelieved() throws IOException {
    refused(dir, "a", npy(1, describe("<f4", "(3,)"), 8), "is given 8 bytes");
    refused(dir, "a", npy(1, describe("<f4", "(3,)"), 16), "is given 16 bytes");
    refused(dir, "a", npy(1, describe("|O", "(1,)"), 8), "'|O'");
    refused(dir, "a", npy(1, describe("<U4", "(1,)"), 16), "'<U4'");
    refused(dir, "a", npy(1, describe("<c8", "(1,)"), 8), "'<c8'");
    refused(dir, "a", npy(1, describe("<f4", "(-1,)"), 4), "");
    refused(dir, "a", npy(1, describe("<f4", "(4294967296, 4294967296)"), 4), "extent");
    refused(dir, "a", npy(2, describe("<f4", "(99999999999999999999,)"), 4), "shape");
    refused(dir, "a", npy(3, describe("<f4", "(2147483647, 2147483647, 2147483647)"), 4), "large");
    refused(dir, "a", npy(3, describe("<f4", "(,,)"), 4), "");
    refused(
        dir,
        "a",
        npy(1, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", 4),
        "structures");
    refused(dir, "a", npy(9, describe("<f4", "(1,)"), 4), "version");
    refused(dir, "a", npy(1, "{}", 40), "header without");
    byte[] length = npy(2, describe("<f4", "(1,)"), 4);
    Arrays.fill(length, 8, 12, (byte) 0xff);
    refused(dir, "a", length, "4294967295");
  }

  @Test
  void zipBombsDoNotGoOff() throws IOException {
    ByteArrayOutputStream packed = new ByteArrayOutputStream();
    try (DeflaterOutputStream out =
        new DeflaterOutputStream(packed, new Deflater(Deflater.BEST_COMPRESSION, true))) {
      out.write(npy(1, describe("|u1", "(268435456,)"), 0));
      for (int i = 0; i < 256; i++) {
        out.write(new byte[1 << 20]);
      }
    }
    int size = npy(1, describe("|u1", "(268435456,)"), 0).length + (1 << 28);
    byte[] bomb = new Pickles.Zip().entry("a.npy", packed.toByteArray(), 8, size, 0).array();
    assertTrue(bomb.length < 400_000);
    refused(dir, "bomb", bomb, "claims to inflate");
    byte[] plain = npy(1, describe("|u1", "(100,)"), 100);
    byte[] small = deflated(plain);
    byte[] good = new Pickles.Zip().entry("a.npy", small, 8, plain.length, 0, plain).array();
    HostileFiles.readAll(Files.write(dir.resolve("good"), good));
    byte[] ratio = new Pickles.Zip().entry("a.npy", small, 8, 1 << 30, 0, plain).array();
    refused(dir, "ratio", ratio, "claims to inflate");
    // It says that it is small and is not, or the reverse.
    byte[] hundred = npy(1, describe("|u1", "(100,)"), 200);
    byte[] more = new Pickles.Zip().entry("a.npy", deflated(hundred), 8, plain.length, 0).array();
    refused(dir, "more", more, "size or checksum");
    byte[] less = new Pickles.Zip().entry("a.npy", small, 8, plain.length + 1, 0).array();
    refused(dir, "less", less, "");
    byte[] check = new Pickles.Zip().entry("a.npy", small, 8, plain.length, 0, small).array();
    refused(dir, "check", check, "checksum");
    refused(dir, "method", new Pickles.Zip().entry("a.npy", small, 12, 9, 0).array(), "method 12");
  }

  @Test
  void whatIsNoCheckpointIsNamed() throws IOException {
    refused(dir, "empty", new byte[0], "is empty");
    refused(dir, "text", "hello, world".getBytes(), "none of");
    refused(dir, "page", "<!DOCTYPE html><html>".getBytes(), "web page");
    refused(dir, "lfs", "version https://git-lfs.github.com/spec/v1".getBytes(), "git lfs pull");
    refused(dir, "json", "{\"a\": 1}".getBytes(), "weight_map");
    refused(dir, "deep", ("{\"weight_map\":" + "[".repeat(100_000)).getBytes(), "weight_map");
    refused(dir, "deeper", ("{\"a\":" + "[".repeat(100_000)).getBytes(), "not JSON");
    refused(dir, "brace", "{".getBytes(), "not JSON");
    refused(dir, "object", "{\"weight_map\":{\"a\":7}}".getBytes(), "does not map");
    refused(dir, "plain", Pickles.protocol(2).ascii("}.").array(), "no tensors");
    refused(dir.resolve("missing"), "no such file");
    refused(Files.createDirectory(dir.resolve("folder")), "neither");
  }

  @Test
  @DisabledOnOs(value = OS.WINDOWS, disabledReason = "makes symbolic links")
  void pathsThatGoInACircleAreNamed() throws IOException {
    refused(Path.of("/dev/null"), "is not a file");
    Path a = dir.resolve("a");
    Path b = dir.resolve("b");
    Files.createSymbolicLink(a, b);
    Files.createSymbolicLink(b, a);
    refused(a, "circle");
    Path self = dir.resolve("self");
    Files.createSymbolicLink(self, self);
    refused(self, "circle");
    Path folder = Files.createDirectory(dir.resolve("folder"));
    Files.createSymbolicLink(folder.resolve("model.safetensors"), Path.of("model.safetensors"));
    refused(folder, "circle");
    Path index = folder.resolve("model.safetensors.index.json");
    Files.writeString(index, "{\"weight_map\":{\"a\":\"model.safetensors\"}}");
    InputException e = assertThrows(InputException.class, () -> Checkpoints.open(folder));
    HostileFiles.assertOneLine(e.getMessage());
  }

  /** Three gigabytes that are not there: a hole in a file costs its maker nothing. */
  @Test
  void aTensorBeyondTwoGigabytesIsOneLine() throws IOException {
    String header =
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[3,1073741824],\"data_offsets\":[0,3221225472]}}";
    Path file = dir.resolve("sparse");
    Files.write(file, safetensors(header.length(), header, 0));
    try (RandomAccessFile grown = new RandomAccessFile(file.toFile(), "rw")) {
      grown.setLength(8 + header.length() + 3_221_225_472L);
    }
    refused(file, "2 GiB");
  }
}
