package org.deixis.io;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.deixis.core.DType;
import org.deixis.core.Half;
import org.deixis.core.InputException;
import org.deixis.core.Shape;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Element types and layouts; the files and how they were made are in resources/io. */
class CheckpointTypesTest {
  private static final float[] COUNT = {0, 1, 2, 3, 4, 5};

  @TempDir Path dir;

  private Path resource(String name) throws IOException {
    Path file = dir.resolve(name + ".copy");
    try (InputStream in = getClass().getResourceAsStream("/io/" + name)) {
      Files.copy(in, file);
    }
    return file;
  }

  private static void assertCounts(HostTensor tensor, DType type, int... dims) {
    assertEquals(type, tensor.dtype(), tensor.name());
    assertEquals(Shape.of(dims), tensor.shape(), tensor.name());
    float[] values = tensor.toFloats();
    for (int i = 0; i < values.length; i++) {
      assertEquals(i, values[i], tensor.name());
    }
  }

  @Test
  void torchZip() throws IOException {
    try (Checkpoint file = Checkpoints.unwrapped(Checkpoints.open(resource("torch_types.pth")))) {
      assertFalse(file.entries().containsKey("optimizer.state.0.step"));
      assertTorch(file);
      assertCounts(file.read("uint16"), DType.I32, 2, 3);
      assertCounts(file.read("uint32"), DType.I64, 2, 3);
      assertCounts(file.read("uint64"), DType.I64, 2, 3);
      assertCounts(file.read("float8_e4m3fn"), DType.F16, 2, 3);
      assertCounts(file.read("float8_e5m2"), DType.F16, 2, 3);
      assertEquals(DType.F16, file.entries().get("float8_e5m2").dtype());
    }
    try (Checkpoint all = Checkpoints.open(resource("torch_types_legacy.pth"))) {
      assertEquals("PyTorch legacy", all.format());
      assertTorch(Checkpoints.unwrapped(all));
    }
  }

  private static void assertTorch(Checkpoint file) {
    assertCounts(file.read("float64"), DType.F64, 2, 3);
    assertCounts(file.read("float32"), DType.F32, 2, 3);
    assertCounts(file.read("float16"), DType.F16, 2, 3);
    assertCounts(file.read("bfloat16"), DType.BF16, 2, 3);
    assertCounts(file.read("int64"), DType.I64, 2, 3);
    assertCounts(file.read("int32"), DType.I32, 2, 3);
    assertCounts(file.read("int16"), DType.I16, 2, 3);
    assertCounts(file.read("int8"), DType.I8, 2, 3);
    assertCounts(file.read("uint8"), DType.U8, 2, 3);
    assertCounts(file.read("parameter"), DType.F32, 6);
    assertCounts(file.read("attributed"), DType.F32, 6);
    assertArrayEquals(new long[] {1, 0, 1}, file.read("flags").toLongs());
    assertEquals(DType.BOOL, file.read("flags").dtype());
    assertCounts(file.read("tied"), DType.F32, 2, 3);
    assertArrayEquals(new float[] {1, 1, 1}, file.read("spread").toFloats());
    HostTensor turned = file.read("turned");
    assertEquals(Shape.of(2, 3, 4), turned.shape());
    float[] values = turned.toFloats();
    for (int i = 0; i < 24; i++) {
      assertEquals(i / 12 + i / 4 % 3 * 2 + i % 4 * 6, values[i]);
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "numpy_2.pkl",
        "numpy_3.pkl",
        "numpy_4.pkl",
        "numpy_5.pkl",
        "arrays.npz",
        "arrays_deflated.npz"
      })
  void numpy(String name) throws IOException {
    try (Checkpoint file = Checkpoints.unwrapped(Checkpoints.open(resource(name)))) {
      assertCounts(file.read("f8"), DType.F64, 2, 3);
      assertCounts(file.read("f4"), DType.F32, 2, 3);
      assertCounts(file.read("f2"), DType.F16, 2, 3);
      assertCounts(file.read("i8"), DType.I64, 2, 3);
      assertCounts(file.read("i4"), DType.I32, 2, 3);
      assertCounts(file.read("i2"), DType.I16, 2, 3);
      assertCounts(file.read("i1"), DType.I8, 2, 3);
      assertCounts(file.read("u1"), DType.U8, 2, 3);
      assertCounts(file.read("u2"), DType.I32, 2, 3);
      assertCounts(file.read("u4"), DType.I64, 2, 3);
      assertCounts(file.read("u8"), DType.I64, 2, 3);
      assertCounts(file.read(">f8"), DType.F64, 2, 3);
      assertCounts(file.read(">f4"), DType.F32, 2, 3);
      assertCounts(file.read(">i2"), DType.I16, 2, 3);
      assertCounts(file.read("columns"), DType.F32, 2, 3, 4);
      assertArrayEquals(new float[] {4}, file.read("scalar").toFloats());
      assertEquals(Shape.of(0, 3), file.read("empty").shape());
      assertArrayEquals(new long[] {1, 0, 1}, file.read("flags").toLongs());
      assertEquals(18, file.entries().size());
    }
  }

  @ParameterizedTest
  @CsvSource({"columns.npy, 24", "version2.npy, 6", "version3.npy, 6"})
  void singleArrays(String name, int elements) throws IOException {
    try (Checkpoint file = Checkpoints.open(resource(name))) {
      assertEquals("NumPy array", file.format());
      assertEquals(Set.of("array"), file.entries().keySet());
      float[] values = file.read("array").toFloats();
      assertEquals(elements, values.length);
      for (int i = 0; i < elements; i++) {
        assertEquals(i, values[i]);
      }
    }
  }

  /** Detectron2's oldest files are Python 2's: text and bytes are one, and module names are old. */
  @Test
  void pythonTwo() throws IOException {
    String values = "\0\0\0\0\0\0\200\77".repeat(3); // 0, 1, 0, 1, 0, 1
    String array = "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\u0085U\1btR";
    String type = "cnumpy\ndtype\n(U\2f4K\0K\1tR(K\3U\1<NNNJ\377\377\377\377J\377\377\377\377K\0tb";
    Pickles p = Pickles.protocol(2).ascii("}U\1x" + array + "(K\1K\2K\3\u0086" + type);
    p.ascii("\u0089U\30" + values + "tbs.");
    try (Checkpoint file = Checkpoints.open(Files.write(dir.resolve("two"), p.array()))) {
      assertEquals(Shape.of(2, 3), file.entries().get("x").shape());
      assertArrayEquals(new float[] {0, 1, 0, 1, 0, 1}, file.read("x").toFloats());
    }
  }

  /** Before PyTorch 0.4 a storage could be a part of another one. */
  @Test
  void partsOfStorages() throws IOException {
    Pickles p = new Pickles().raw(resourceStart());
    p.bytes(0x80, 2)
        .ascii("}U\1xctorch._utils\n_rebuild_tensor\n((U\7storagectorch\nShortStorage\n");
    p.ascii("U\1kU\3cpuK\6(U\1vK\2K\4ttQK\1K\3\u0085K\1\u0085tRs.");
    p.bytes(0x80, 2).ascii("]U\1ka.").i8(6);
    for (int i = 0; i < 6; i++) {
      p.bytes(i, 0);
    }
    try (Checkpoint file = Checkpoints.open(Files.write(dir.resolve("parts"), p.array()))) {
      assertArrayEquals(new long[] {3, 4, 5}, file.read("x").toLongs());
    }
  }

  /** Magic number, protocol and system, as every file of the older format begins. */
  private byte[] resourceStart() throws IOException {
    byte[] whole = HostileFiles.resource("/golden/checkpoints/swin_legacy.pth");
    return Arrays.copyOf(whole, 137); // the object's pickle begins there
  }

  @Test
  void arraysOfObjectsAreRefused() throws IOException {
    Path file = resource("objects.npy");
    InputException e = assertThrows(InputException.class, () -> Checkpoints.open(file));
    assertEquals(
        file + ": tensor 'array' has the type '|O'; only numbers are read", e.getMessage());
  }

  /** Every eight-bit float against the formula of its format. */
  @Test
  void eightBitFloatsAreExact() {
    for (int bits = 0; bits < 256; bits++) {
      int sign = bits < 128 ? 1 : -1;
      int e = bits >> 3 & 15;
      int m = bits & 7;
      double e4m3 =
          e == 15 && m == 7
              ? Double.NaN
              : sign * (e == 0 ? m / 8.0 * Math.pow(2, -6) : (1 + m / 8.0) * Math.pow(2, e - 7));
      assertEquals((float) e4m3, one(StoredType.F8_E4M3, bits), "e4m3 " + bits);
      e = bits >> 2 & 31;
      m = bits & 3;
      double e5m2 =
          e == 31
              ? (m == 0 ? sign * Double.POSITIVE_INFINITY : Double.NaN)
              : sign * (e == 0 ? m / 4.0 * Math.pow(2, -14) : (1 + m / 4.0) * Math.pow(2, e - 15));
      assertEquals((float) e5m2, one(StoredType.F8_E5M2, bits), "e5m2 " + bits);
      // The variants without a negative zero: its pattern is the only NaN, and there is no
      // infinity.
      e = bits >> 3 & 15;
      m = bits & 7;
      double e4m3fnuz =
          bits == 128
              ? Double.NaN
              : sign * (e == 0 ? m / 8.0 * Math.pow(2, -7) : (1 + m / 8.0) * Math.pow(2, e - 8));
      assertEquals((float) e4m3fnuz, one(StoredType.F8_E4M3FNUZ, bits), "e4m3fnuz " + bits);
      e = bits >> 2 & 31;
      m = bits & 3;
      double e5m2fnuz =
          bits == 128
              ? Double.NaN
              : sign * (e == 0 ? m / 4.0 * Math.pow(2, -15) : (1 + m / 4.0) * Math.pow(2, e - 16));
      assertEquals((float) e5m2fnuz, one(StoredType.F8_E5M2FNUZ, bits), "e5m2fnuz " + bits);
      double e8m0 = bits == 255 ? Double.NaN : Math.pow(2, bits - 127);
      assertEquals((float) e8m0, one(StoredType.F8_E8M0, bits), "e8m0 " + bits);
    }
  }

  private static float one(StoredType type, int bits) {
    ByteBuffer wide = type.widen(ByteBuffer.wrap(new byte[] {(byte) bits}), 1);
    return type.dtype() == DType.F32 ? wide.getFloat() : Half.toFloat(DType.F16, wide.getShort());
  }

  /**
   * Written by safetensors 0.8 from tensors of torch 2.13: every type that it knows. What is listed
   * is the file's own type and size, and what the engine has no type for hinders nothing else.
   */
  @Test
  void everyTypeOfSafetensorsIsListedAndThoseOfOnePartAreRead() throws IOException {
    try (Checkpoint file = Checkpoints.open(resource("torch_types.safetensors"))) {
      Map<String, Long> listed = new TreeMap<>();
      file.entries().forEach((name, e) -> listed.put(name + " " + e.type(), e.bytes()));
      assertEquals(
          Map.ofEntries(
              Map.entry("bfloat16 BF16", 12L),
              Map.entry("bool BOOL", 16L),
              Map.entry("complex64 C64", 48L),
              Map.entry("float4_e2m1fn_x2 F4", 16L),
              Map.entry("float8_e4m3fn F8_E4M3", 16L),
              Map.entry("float8_e4m3fnuz F8_E4M3FNUZ", 16L),
              Map.entry("float8_e5m2 F8_E5M2", 16L),
              Map.entry("float8_e5m2fnuz F8_E5M2FNUZ", 16L),
              Map.entry("float8_e8m0fnu F8_E8M0", 16L),
              Map.entry("uint16 U16", 12L),
              Map.entry("uint32 U32", 24L),
              Map.entry("uint64 U64", 48L)),
          listed);
      assertEquals(Shape.of(32), file.entries().get("float4_e2m1fn_x2").shape());
      assertCounts(file.read("bfloat16"), DType.BF16, 6);
      assertCounts(file.read("uint16"), DType.I32, 6);
      assertCounts(file.read("uint32"), DType.I64, 6);
      assertCounts(file.read("uint64"), DType.I64, 6);
      for (String name : List.of("complex64", "float4_e2m1fn_x2")) {
        InputException e = assertThrows(InputException.class, () -> file.read(name));
        assertTrue(e.getMessage().contains("not read"), e.getMessage());
        HostileFiles.assertOneLine(e.getMessage());
      }
    }
  }

  @Test
  void safetensorsOfTypesTheEngineLacks() throws IOException {
    String header =
        "{\"u\":{\"dtype\":\"U16\",\"shape\":[1],\"data_offsets\":[0,2]},"
            + "\"f\":{\"dtype\":\"F8_E5M2\",\"shape\":[2],\"data_offsets\":[2,4]},"
            + "\"b\":{\"dtype\":\"BF16\",\"shape\":[1,1],\"data_offsets\":[4,6]},"
            + "\"l\":{\"dtype\":\"U64\",\"shape\":[],\"data_offsets\":[6,14]}}";
    ByteBuffer bytes = ByteBuffer.allocate(8 + header.length() + 14).order(ByteOrder.LITTLE_ENDIAN);
    bytes.putLong(header.length()).put(header.getBytes(StandardCharsets.US_ASCII));
    bytes.putShort((short) 65_535).put((byte) 0x3c).put((byte) 0xbc);
    bytes.putShort((short) 0x3f80).putLong(-1);
    Path path = Files.write(dir.resolve("types"), bytes.array());
    try (Checkpoint file = Checkpoints.open(path)) {
      assertArrayEquals(new long[] {65_535}, file.read("u").toLongs());
      assertArrayEquals(new float[] {1, -1}, file.read("f").toFloats());
      assertArrayEquals(new float[] {1}, file.read("b").toFloats());
      InputException e = assertThrows(InputException.class, () -> file.read("l"));
      assertTrue(e.getMessage().contains("18446744073709551615"), e.getMessage());
      assertThrows(IllegalArgumentException.class, () -> file.read("none"));
    }
  }

  @Test
  void shardsAreReadThroughTheirIndex() throws IOException {
    Path folder = Files.createDirectory(dir.resolve("sharded"));
    HostTensor a = HostTensor.ofFloats("a", Shape.of(6), COUNT);
    HostTensor b = HostTensor.ofFloats("b", Shape.of(2, 3), COUNT);
    Safetensors.write(folder.resolve("model-00001-of-00002.safetensors"), List.of(a), Map.of());
    Safetensors.write(folder.resolve("model-00002-of-00002.safetensors"), List.of(b), Map.of());
    Path index = folder.resolve("model.safetensors.index.json");
    String map = "{\"metadata\":{\"total_size\":48},\"weight_map\":{\"b\":\"%s\",\"a\":\"%s\"}}";
    String second = "model-00002-of-00002.safetensors";
    Files.writeString(index, map.formatted(second, "model-00001-of-00002.safetensors"));
    for (Path path : List.of(folder, index)) {
      try (Checkpoint file = Checkpoints.open(path)) {
        assertEquals("safetensors, 2 shards", file.format());
        assertEquals(List.of("b", "a"), List.copyOf(file.entries().keySet()));
        assertCounts(file.read("a"), DType.F32, 6);
        assertCounts(file.read("b"), DType.F32, 2, 3);
      }
    }
    String whole = Files.readString(index);
    for (int i = 0; i < 16; i++) {
      Files.writeString(index, whole.substring(0, whole.length() * i / 16));
      HostileFiles.refused(index, "");
    }
    for (String bad :
        List.of("../model.safetensors", "/etc/passwd", "c:x", "a\\b", "", "..", "none", second)) {
      Files.writeString(index, map.formatted(second, bad.replace("\\", "\\\\")));
      InputException e = assertThrows(InputException.class, () -> Checkpoints.open(folder), bad);
      assertFalse(e.getMessage().contains("\n"));
    }
  }

  @Test
  void onlyWrappersOfEverythingAreTakenOff() throws IOException {
    HostTensor x = HostTensor.ofFloats("module.model.x", Shape.of(6), COUNT);
    HostTensor y = HostTensor.ofFloats("module.model.model.y", Shape.of(6), COUNT);
    HostTensor head = HostTensor.ofFloats("module.head", Shape.of(6), COUNT);
    Path path = dir.resolve("wrapped");
    Safetensors.write(path, List.of(x, y), Map.of());
    try (Checkpoint file = Checkpoints.unwrapped(Checkpoints.open(path))) {
      assertEquals(Set.of("x", "model.y"), file.entries().keySet());
      assertEquals("x", file.read("x").name());
      assertThrows(IllegalArgumentException.class, () -> file.read("module.model.x"));
    }
    Safetensors.write(path, List.of(x, head), Map.of());
    try (Checkpoint file = Checkpoints.unwrapped(Checkpoints.open(path))) {
      assertEquals(Set.of("model.x", "head"), file.entries().keySet());
    }
    Safetensors.write(path, List.of(), Map.of());
    try (Checkpoint file = Checkpoints.open(path)) {
      assertSame(file, Checkpoints.unwrapped(file));
    }
  }
}
