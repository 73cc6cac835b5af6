package org.deixis.io;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.deixis.core.DType;
import org.deixis.core.Half;
import org.deixis.core.Shape;
import org.deixis.testing.Golden;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * The same parameters in the formats in which people publish them, against the tests' own reader.
 */
class CheckpointGoldenTest {
  @TempDir Path dir;

  private Path golden(String name) throws IOException {
    Path file = dir.resolve(name.replace('.', '_')); // the name must not matter
    try (InputStream in = getClass().getResourceAsStream("/golden/checkpoints/" + name)) {
      Files.copy(in, file);
    }
    return file;
  }

  private static void assertSame(Golden golden, Checkpoint file, String prefix) {
    assertEquals(golden.keys().size(), file.entries().size());
    for (String key : golden.keys()) {
      HostTensor read = file.read(prefix + key);
      assertEquals(golden.shape(key), read.shape(), key);
      assertEquals(golden.shape(key), file.entries().get(prefix + key).shape(), key);
      assertEquals(golden.dtype(key), read.dtype(), key);
      if (read.dtype().isFloating()) {
        assertBits(golden.floats(key), read.toFloats(), key);
      } else {
        assertArrayEquals(golden.longs(key), read.toLongs(), key);
      }
    }
  }

  private static void assertBits(float[] expected, float[] actual, String what) {
    assertEquals(expected.length, actual.length, what);
    for (int i = 0; i < expected.length; i++) {
      assertEquals(Float.floatToRawIntBits(expected[i]), Float.floatToRawIntBits(actual[i]), what);
    }
  }

  @ParameterizedTest
  @CsvSource({
    "swin.safetensors, safetensors, ''",
    "swin_zip.pth, PyTorch zip, ''",
    "swin_zip_nested.pth, PyTorch zip, model.",
    "swin_legacy.pth, PyTorch legacy, model.",
    "swin_numpy.pkl, NumPy pickle, model."
  })
  void everyFormatHoldsTheSameSwin(String name, String format, String prefix) throws IOException {
    try (Checkpoint file = Checkpoints.open(golden(name))) {
      assertEquals(format, file.format());
      assertSame(Golden.load("checkpoints/swin"), file, prefix);
    }
  }

  @ParameterizedTest
  @CsvSource({"swin_fp16.pth, F16", "swin_bf16.pth, BF16"})
  void halvesAreTheNearestOfTheFullValues(String name, DType type) throws IOException {
    Golden golden = Golden.load("checkpoints/swin");
    try (Checkpoint file = Checkpoints.open(golden(name))) {
      assertEquals(golden.keys(), file.entries().keySet());
      for (String key : golden.keys()) {
        HostTensor read = file.read(key);
        if (!golden.dtype(key).isFloating()) {
          assertArrayEquals(golden.longs(key), read.toLongs(), key);
          continue;
        }
        assertEquals(type, read.dtype(), key);
        float[] values = golden.floats(key);
        for (int i = 0; i < values.length; i++) {
          values[i] = Half.toFloat(type, Half.fromFloat(type, values[i]));
        }
        assertBits(values, read.toFloats(), key);
      }
    }
  }

  @Test
  void legacyNamesHoldTheSameBert() throws IOException {
    Golden golden = Golden.load("checkpoints/bert");
    try (Checkpoint file = Checkpoints.open(golden("bert_legacy_names.bin"));
        Checkpoint plain = Checkpoints.open(golden("bert.safetensors"))) {
      assertSame(golden, plain, "");
      assertEquals(golden.keys().size(), file.entries().size());
      for (String key : golden.keys()) {
        String old =
            key.replace("LayerNorm.weight", "LayerNorm.gamma")
                .replace("LayerNorm.bias", "LayerNorm.beta");
        if (golden.dtype(key).isFloating()) {
          assertBits(golden.floats(key), file.read(old).toFloats(), key);
        } else {
          assertArrayEquals(golden.longs(key), file.read(old).toLongs(), key);
        }
      }
    }
  }

  @Test
  void stridedViewsBecomeContiguous() throws IOException {
    HostTensor turned;
    try (Checkpoint file = Checkpoints.open(golden("strided_views.pth"))) {
      assertEquals(List.of("t", "slice", "scalar", "empty"), List.copyOf(file.entries().keySet()));
      turned = file.read("t");
      HostTensor slice = file.read("slice");
      assertEquals(Shape.of(2, 3), slice.shape());
      assertArrayEquals(new float[] {8, 9, 10, 14, 15, 16}, slice.toFloats());
      assertEquals(Shape.of(), file.read("scalar").shape());
      assertArrayEquals(new float[] {2.5f}, file.read("scalar").toFloats());
      assertEquals(Shape.of(0, 3), file.read("empty").shape());
      assertEquals(0, file.read("empty").toFloats().length);
    }
    assertEquals(Shape.of(6, 4), turned.shape());
    float[] values = turned.toFloats(); // read before the file was closed, valid behind it
    for (int i = 0; i < 24; i++) {
      assertEquals(i / 4 + i % 4 * 6, values[i]);
    }
  }

  @Test
  void whatIsReadIsMappedNotCopied() throws IOException {
    try (Checkpoint file = Checkpoints.open(golden("swin_zip.pth"))) {
      assertTrue(file.read("patch_embed.proj.weight").data().isDirect());
    }
  }
}
