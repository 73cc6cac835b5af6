package org.deixis.io;

import static org.deixis.io.HostileFiles.refused;
import static org.deixis.io.HostileFiles.resource;
import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Pickles that ask for what they must not have, each as a bare pickle and within PyTorch's zip. */
class PickleHostileTest {
  private static final int MANY = 100_000;

  @TempDir Path dir;

  private void assertRefused(Pickles pickle, String words) throws IOException {
    refused(dir, "bare.pkl", pickle.array(), words);
    refused(dir, "zip.pth", new Pickles.Zip().entry("a/data.pkl", pickle.array()).array(), words);
    byte[] head = {(byte) 0x80, 2, (byte) 0x8a, 10, 0x6c, (byte) 0xfc, (byte) 0x9c, 0x46};
    Pickles legacy = new Pickles().raw(head).bytes(0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.');
    legacy.bytes(0x80, 2, 'M', 0xe9, 3, '.').bytes(0x80, 2, '}', '.').raw(pickle.array());
    legacy.bytes(0x80, 2, ']', '.'); // the keys of its storages: none
    refused(dir, "legacy.pth", legacy.array(), words);
  }

  @ParameterizedTest
  @CsvSource({
    "os, system",
    "posix, system",
    "nt, system",
    "builtins, eval",
    "builtins, exec",
    "builtins, getattr",
    "builtins, __import__",
    "__builtin__, eval",
    "subprocess, Popen",
    "torch, load",
    "torch.storage, _load_from_bytes",
    "torch.hub, load",
    "numpy, load",
    "numpy.core.multiarray, fromfile",
    "_codecs, decode",
    "collections, namedtuple",
    "pickle, loads",
    "java.lang, Runtime",
    "java.lang.Runtime, getRuntime"
  })
  void namesBeyondTheListAreRefusedByName(String module, String name) throws IOException {
    String asked = "the pickle asks for " + module + "." + name;
    String only = "; only tensors and plain containers are read";
    assertRefused(
        Pickles.protocol(2)
            .ascii("c" + module + "\n" + name + "\n(")
            .text("echo here")
            .ascii("tR."),
        asked + only);
    assertRefused(
        Pickles.protocol(4)
            .bytes(0x8c, module.length())
            .ascii(module)
            .bytes(0x8c, name.length())
            .ascii(name)
            .bytes(0x93)
            .text("echo here")
            .bytes(0x85)
            .ascii("R."),
        asked + only);
  }

  @Test
  void theLineIsAsTheManualSays() throws IOException {
    Path file = dir.resolve("evil.pkl");
    Files.write(file, Pickles.protocol(2).ascii("cos\nsystem\n.").array());
    assertEquals(
        file + ": the pickle asks for os.system; only tensors and plain containers are read",
        refused(file, ""));
  }

  @Test
  void noNameLeadsAround() throws IOException {
    // A dotted name of protocol 4 walks attributes in Python: it is one name here, and not listed.
    assertRefused(
        Pickles.protocol(4)
            .bytes(0x8c, 5)
            .ascii("torch")
            .bytes(0x8c, 9)
            .ascii("os.system")
            .bytes(0x93),
        "torch.os.system");
    assertRefused(Pickles.protocol(2).ascii("(S'echo'\nios\nsystem\n."), "instruction STRING");
    assertRefused(Pickles.protocol(2).ascii("(K\1ios\nsystem\n."), "INST");
    assertRefused(Pickles.protocol(2).ascii("(ctorch\nTensor\no."), "OBJ");
    assertRefused(Pickles.protocol(2).bytes(0x82, 1), "EXT");
    assertRefused(Pickles.protocol(5).bytes(0x97), "BUFFER");
    assertRefused(Pickles.protocol(2).ascii("ctorch\nTensor\n)R."), "calls torch.Tensor");
    assertRefused(Pickles.protocol(2).ascii("ctorch\nFloatStorage\n}b."), "sets the state of");
    assertRefused(Pickles.protocol(2).ascii("K\1)R."), "calls what is not a name");
    assertRefused(Pickles.protocol(6).ascii("N."), "protocol 6");
    assertRefused(Pickles.protocol(2).ascii("ca\u001b[2J\u0007\nb\n."), "asks for a?[2J?.b");
  }

  @ParameterizedTest
  @ValueSource(strings = {"list", "tuple", "dict", "mark", "reduce"})
  void deepNestingIsALoopAndBounded(String kind) throws IOException {
    Pickles p = Pickles.protocol(2);
    switch (kind) {
      case "list" -> p.ascii("]", MANY).ascii("a", MANY - 1).ascii(".");
      case "tuple" -> p.ascii(")").ascii("\u0085", MANY).ascii(".");
      case "dict" -> p.ascii("}K\1", MANY).ascii("N").ascii("s", MANY).ascii(".");
      case "mark" -> p.ascii("(", MANY).ascii("t", MANY).ascii(".");
      default ->
          p.ascii("ccollections\nOrderedDict\n", MANY).ascii(")").ascii("R\u0085", MANY).ascii(".");
    }
    // The last one is no dictionary of pairs, and refused for that.
    assertRefused(p, kind.equals("reduce") ? "" : "nested more than");
  }

  @Test
  void circlesAndDoublingEnd() throws IOException {
    assertRefused(Pickles.protocol(2).ascii("]q\0h\0a."), "nested more than");
    assertRefused(Pickles.protocol(2).ascii("}q\0K\1h\0s."), "nested more than");
    // Thirty levels, each holding the one below ten times.
    Pickles bomb = Pickles.protocol(2).ascii("]q\0");
    for (int i = 1; i < 30; i++) {
      bomb.ascii("](").ascii("h" + (char) (i - 1), 10).ascii("eq" + (char) i);
    }
    assertRefused(bomb.ascii("(").ascii("0", 1).ascii("."), "");
    Pickles whole = Pickles.protocol(2).ascii("]q\0");
    for (int i = 1; i < 30; i++) {
      whole.ascii("0](").ascii("h" + (char) (i - 1), 10).ascii("eq" + (char) i);
    }
    assertRefused(whole.ascii("."), "no end");
  }

  @Test
  void longNamesAreNotMultiplied() throws IOException {
    String array = "cnumpy.core.multiarray\n_reconstruct\n)R(K\1K\0\u0085cnumpy\ndtype\n";
    for (boolean tensor : new boolean[] {true, false}) {
      Pickles p = Pickles.protocol(3);
      if (tensor) {
        p.ascii(array).text("f4").ascii("\u0085R\u0089C\0tbq\0");
      } else {
        p.ascii("]q\0");
      }
      for (int level = 1; level < 6; level++) {
        p.ascii("0}(");
        for (int i = 0; i < 12; i++) {
          p.text((char) ('a' + i) + "x".repeat(180)).ascii("h" + (char) (level - 1));
        }
        p.ascii("uq" + (char) level);
      }
      for (int level = 6; level < 20; level++) {
        p.ascii("0](").ascii("h" + (char) (level - 1), 10).ascii("eq" + (char) level);
      }
      assertRefused(p.ascii("."), tensor ? "names of its tensors" : "no end");
    }
  }

  @Test
  void claimsBeyondTheFileAllocateNothing() throws IOException {
    assertRefused(Pickles.protocol(2).ascii("Nr").i4(1_000_000_000).ascii("."), "1000000000");
    assertRefused(Pickles.protocol(2).ascii("Nr").i4(-1).ascii("."), "4294967295");
    assertRefused(Pickles.protocol(2).ascii("Nj").i4(-1).ascii("."), "4294967295");
    assertRefused(Pickles.protocol(0).ascii("Np999999999999999999999\n."), "no number of a kept");
    assertRefused(Pickles.protocol(2).bytes(0x8b).i4(Integer.MAX_VALUE), "whole number claims");
    assertRefused(Pickles.protocol(2).bytes(0x8b).i4(-2), "whole number claims");
    assertRefused(Pickles.protocol(4).bytes(0x95).i8(1L << 62).ascii("N."), "frame claims");
    assertRefused(Pickles.protocol(4).bytes(0x95).i8(-1).ascii("N."), "frame claims");
    assertRefused(Pickles.protocol(4).bytes(0x8d).i8(Long.MAX_VALUE).ascii("."), "claims");
    assertRefused(Pickles.protocol(4).bytes(0x8e).i8(Long.MIN_VALUE).ascii("."), "claims");
    assertRefused(Pickles.protocol(5).bytes(0x96).i8(1L << 40).ascii("."), "claims");
    assertRefused(Pickles.protocol(2).ascii("X").i4(-1).ascii("."), "claims");
    assertRefused(Pickles.protocol(2).ascii("T").i4(-1).ascii("."), "claims");
    assertRefused(Pickles.protocol(2).ascii("B").i4(Integer.MAX_VALUE).ascii("."), "claims");
    assertRefused(Pickles.protocol(2).ascii("c").ascii("a", MANY), "no end");
    assertRefused(Pickles.protocol(2).ascii("I").ascii("9", MANY), "no end");
  }

  @Test
  void brokenStacksAreRefused() throws IOException {
    for (String body :
        new String[] {
          ".",
          "0.",
          "1.",
          "t.",
          "u.",
          "s.",
          "a.",
          "e.",
          "R.",
          "b.",
          "2.",
          "NN.",
          "(N.",
          "Nt.",
          "}Ns.",
          "(}Nu.",
          "]NNs.",
          "NNa.",
          "}(Nu.",
          "h\0.",
          "Nh\5.",
          "]R.",
          "N.",
          "].",
          "}.",
          "Ix\n.",
          "F1.2.3\n.",
          "\u0093.",
          "NN\u0093.",
          "Nb.",
          "]]b."
        }) {
      assertRefused(Pickles.protocol(2).ascii(body), "");
    }
    assertRefused(Pickles.protocol(2).ascii("K\1Q."), "");
    assertRefused(Pickles.protocol(2).ascii("Pkey\n."), "");
  }

  /** Millions of instructions, the costliest there are, each kept: bounded before the heap is. */
  @ParameterizedTest
  @ValueSource(
      strings = {
        "}",
        "]",
        "N\u0085",
        "]Na",
        "}K\1Ns",
        "}\u0094",
        "G12345678",
        "h\0h\1R",
        "h\2h\3\u0086h\4b"
      })
  void aFileOfNothingButValuesIsBounded(String body) throws IOException {
    Pickles p = Pickles.protocol(4).ascii("cnumpy.core.multiarray\n_reconstruct\nq\0)q\1");
    p.ascii("cnumpy\ndtype\nq\2X").i4(2).ascii("f4\u0085q\3Nq\4");
    Path file =
        Files.write(
            dir.resolve("many.pkl"), p.ascii(body, 2_500_001 / body.length() + 900_000).array());
    refused(file, "");
  }

  @Test
  void copiesAreNotMultiplied() throws IOException {
    // A list of 100,000 items, from which 100,000 lists and dictionaries are made.
    for (String made : new String[] {"builtins\nlist", "builtins\ntuple", "torch\nSize"}) {
      Pickles p = Pickles.protocol(2).ascii("](").ascii("N", MANY).ascii("eq\0c" + made + "\nq\1");
      p.ascii("h\1h\0\u0085R", MANY).ascii(".");
      assertRefused(p, "");
    }
    Pickles p = Pickles.protocol(2).ascii("](").ascii("NN\u0086", MANY).ascii("eq\0");
    p.ascii("ccollections\nOrderedDict\nq\1").ascii("h\1h\0\u0085R", MANY).ascii(".");
    assertRefused(p, "more than 2500000 instructions");
    // A text of a megabyte, which a hundred thousand times is made into bytes.
    Pickles text = Pickles.protocol(2).text("x".repeat(1 << 20)).ascii("q\0c_codecs\nencode\nq\1");
    text.text("latin1").ascii("q\2").ascii("h\1h\0h\2\u0086R", MANY).ascii(".");
    assertRefused(text, "values left over");
  }

  @Test
  void cutTextIsNoBytes() throws IOException {
    String start = "c_codecs\nencode\n";
    assertRefused(
        Pickles.protocol(2)
            .ascii(start)
            .text("\u0100".repeat(5000))
            .text("latin1")
            .ascii("\u0086R."),
        "holds what bytes do not");
    assertRefused(
        Pickles.protocol(2).ascii(start).text("\u0100").text("latin1").ascii("\u0086R."),
        "beyond 255");
    assertRefused(
        Pickles.protocol(2).ascii(start).text("a").text("rot13").ascii("\u0086R."), "latin1");
  }

  @Test
  void arraysOfFalseShapesAreRefused() throws IOException {
    String[] shapes = {
      "K\2K\3\u0086", // six elements of eight bytes
      "J\377\377\377\377\u0085",
      "\u008a\10\0\0\0\0\0\0\0\100\u0085",
      "J\0\0\0\100J\0\0\0\100J\0\0\0\100\u0087",
      "(" + "K\1".repeat(65) + "t",
      "N\u0085",
      "N"
    };
    for (String shape : shapes) {
      assertRefused(
          Pickles.protocol(3)
              .ascii("cnumpy.core.multiarray\n_reconstruct\n)R(K\1" + shape + "cnumpy\ndtype\n")
              .text("f4")
              .ascii("\u0085R\u0089C\u0008abcdefghtb."),
          "");
    }
    assertRefused(
        Pickles.protocol(3).ascii("cnumpy.core.multiarray\n_reconstruct\n)R."), "has no values");
    byte[] real = resource("/io/numpy_3.pkl");
    Files.write(dir.resolve("real"), real);
    HostileFiles.readAll(dir.resolve("real"));
  }
}
