package org.deixis.io;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
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
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.core.Shape;
import org.deixis.testing.Golden;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class SafetensorsTest {
  @TempDir Path dir;

  @Test
  void whatIsWrittenIsRead() {
    Path file = dir.resolve("a.safetensors");
    Safetensors.write(
        file,
        List.of(
            HostTensor.ofFloats("x", Shape.of(2, 3), new float[] {1, 2, 3, 4, 5, Float.NaN}),
            HostTensor.ofLongs("n", Shape.of(), new long[] {Long.MIN_VALUE}),
            HostTensor.ofInts("none", Shape.of(0, 7), new int[0])),
        Map.of("step", "12"));
    Safetensors read = Safetensors.read(file);
    assertEquals(Map.of("step", "12"), read.metadata());
    assertArrayEquals(new float[] {1, 2, 3, 4, 5, Float.NaN}, read.tensors().get("x").toFloats());
    assertEquals(Shape.of(), read.tensors().get("n").shape());
    assertArrayEquals(new long[] {Long.MIN_VALUE}, read.tensors().get("n").toLongs());
    assertEquals(DType.I32, read.tensors().get("none").dtype());
    assertFalse(Files.exists(dir.resolve("a.safetensors.partial")));
  }

  @Test
  void filesOfTheReferenceWriterAreRead() throws IOException {
    Path file = dir.resolve("g.safetensors");
    try (InputStream in = getClass().getResourceAsStream("/golden/ops/linear.safetensors")) {
      Files.copy(in, file);
    }
    Golden golden = Golden.load("ops/linear");
    Safetensors read = Safetensors.read(file);
    assertEquals(golden.keys(), read.tensors().keySet());
    for (String key : golden.keys()) {
      assertArrayEquals(golden.floats(key), read.tensors().get(key).toFloats(), key);
    }
  }

  @Test
  void aCutFileIsRefusedWhereverItIsCut() throws IOException {
    Path file = dir.resolve("whole.safetensors");
    Safetensors.write(
        file, List.of(HostTensor.ofFloats("x", Shape.of(64), new float[64])), Map.of());
    byte[] whole = Files.readAllBytes(file);
    for (int i = 0; i < 16; i++) {
      Path cut = dir.resolve("cut" + i);
      Files.write(cut, Arrays.copyOf(whole, whole.length * i / 16));
      InputException e = assertThrows(InputException.class, () -> Safetensors.read(cut));
      assertTrue(e.getMessage().contains("cut") && !e.getMessage().contains("\n"), e.getMessage());
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,800]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2147483647,2147483647,2147483647],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}",
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}",
        "{\"a\":7}",
        "[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]",
        "{\"a\":"
      })
  void aFalseHeaderIsRefused(String header) throws IOException {
    byte[] json = header.getBytes(StandardCharsets.UTF_8);
    ByteBuffer bytes = ByteBuffer.allocate(8 + json.length + 16).order(ByteOrder.LITTLE_ENDIAN);
    bytes.putLong(json.length).put(json);
    Path file = dir.resolve("false.safetensors");
    Files.write(file, bytes.array());
    InputException e = assertThrows(InputException.class, () -> Safetensors.read(file));
    assertFalse(e.getMessage().contains("\n"), e.getMessage());
  }

  @ParameterizedTest
  @ValueSource(longs = {Long.MIN_VALUE, Long.MAX_VALUE, -1, 0, 1, 99_999_999, 1L << 40})
  void aHeaderLengthBeyondTheFileIsRefused(long length) throws IOException {
    Path file = dir.resolve("length.safetensors");
    Files.write(
        file, ByteBuffer.allocate(24).order(ByteOrder.LITTLE_ENDIAN).putLong(length).array());
    assertThrows(InputException.class, () -> Safetensors.read(file));
  }

  @Test
  void aFailedWriteLeavesTheOldFile() throws IOException {
    Path file = dir.resolve("kept.safetensors");
    Safetensors.write(file, List.of(HostTensor.ofInts("x", Shape.of(1), new int[] {5})), Map.of());
    Files.createDirectory(dir.resolve("kept.safetensors.partial"));
    assertThrows(
        InputException.class,
        () ->
            Safetensors.write(
                file, List.of(HostTensor.ofInts("x", Shape.of(1), new int[] {6})), Map.of()));
    assertArrayEquals(new long[] {5}, Safetensors.read(file).tensors().get("x").toLongs());
  }
}
