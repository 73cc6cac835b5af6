package org.deixis.export;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import org.deixis.backend.Backends;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.core.Shape;
import org.deixis.io.HostTensor;
import org.deixis.io.NpzWriter;
import org.deixis.io.Safetensors;
import org.deixis.nn.LinearLayer;
import org.deixis.nn.ParameterSource;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class WeightsExportTest {
  @TempDir private Path dir;

  private static LinearLayer layer() {
    return new LinearLayer(ParameterSource.fresh(Backends.get("reference"), 5), 3, 2);
  }

  @Test
  void safetensorsHoldEveryParameter() {
    Path file = dir.resolve("w.safetensors");
    try (LinearLayer layer = layer()) {
      WeightsExport.safetensors(layer, file);
      Map<String, HostTensor> read = Safetensors.read(file).tensors();
      assertEquals(layer.parameters().keySet(), read.keySet());
      layer
          .parameters()
          .forEach((name, p) -> assertArrayEquals(p.toFloats(), read.get(name).toFloats(), name));
    }
  }

  /** Read here byte by byte, as the format's description has it. */
  @Test
  void npzHoldsEveryParameterUncompressed() throws IOException {
    Path file = dir.resolve("w.npz");
    try (LinearLayer layer = layer()) {
      WeightsExport.npz(layer, file);
      try (ZipFile zip = new ZipFile(file.toFile())) {
        assertEquals(2, zip.size());
        check(zip, "weight.npy", "(2, 3)", layer.weight().toFloats());
        check(zip, "bias.npy", "(2,)", layer.bias().toFloats());
      }
    }
    try (Stream<Path> files = Files.list(dir)) {
      assertEquals(1, files.count(), "no temporary files stay");
    }
  }

  private static void check(ZipFile zip, String name, String shape, float[] expected)
      throws IOException {
    ZipEntry entry = zip.getEntry(name);
    assertEquals(ZipEntry.STORED, entry.getMethod());
    byte[] all;
    try (InputStream in = zip.getInputStream(entry)) {
      all = in.readAllBytes();
    }
    ByteBuffer bytes = ByteBuffer.wrap(all).order(ByteOrder.LITTLE_ENDIAN);
    assertEquals("\u0093NUMPY\u0001\u0000", new String(all, 0, 8, StandardCharsets.ISO_8859_1));
    int header = bytes.getShort(8);
    assertEquals(0, (10 + header) % 64, "values begin aligned");
    assertEquals(
        "{'descr': '<f4', 'fortran_order': False, 'shape': " + shape + ", }",
        new String(all, 10, header, StandardCharsets.US_ASCII).strip());
    float[] values = new float[expected.length];
    bytes.position(10 + header).slice().order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values);
    assertArrayEquals(expected, values);
    assertEquals(10 + header + 4 * values.length, all.length);
  }

  @Test
  void aTypeThatNumpyLacksLeavesNothingBehind() throws IOException {
    HostTensor t = new HostTensor("x", DType.BF16, Shape.of(2), ByteBuffer.allocate(4));
    Path file = dir.resolve("x.npz");
    String message =
        assertThrows(InputException.class, () -> NpzWriter.write(file, List.of(t))).getMessage();
    assertTrue(message.contains("BF16"), message);
    try (Stream<Path> files = Files.list(dir)) {
      assertEquals(0, files.count());
    }
  }
}
