package org.deixis.io;

import ai.onnx.proto.OnnxMl.GraphProto;
import ai.onnx.proto.OnnxMl.ModelProto;
import ai.onnx.proto.OnnxMl.OperatorSetIdProto;
import ai.onnx.proto.OnnxMl.StringStringEntryProto;
import ai.onnx.proto.OnnxMl.TensorProto;
import com.google.protobuf.CodedOutputStream;
import com.google.protobuf.WireFormat;
import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.deixis.core.InputException;
import org.deixis.core.Reason;

/**
 * Writes an {@link OnnxGraph} as a file. The constants are streamed behind the graph's nodes as the
 * fields of the protocol buffer that they are, so that one of them at a time is in memory, where
 * protobuf's own writer would need all.
 */
public final class OnnxFile {
  /**
   * Bytes of constants up to which they lie in the model's file: a protocol buffer ends at 2 GiB,
   * and the nodes need some.
   */
  public static final long MOST_INLINE = 2_000_000_000L;

  /** Shapes and scalars stay in the model, where shape inference reads them. */
  private static final long SMALL = 1024;

  /** So that a runtime can map a tensor from the file. */
  private static final long ALIGNMENT = 4096;

  /** First IR version that knows operator sets 13 and 17. */
  private static final Map<Integer, Integer> IR = Map.of(13, 7, 17, 8);

  /** A file under way, under its temporary name. */
  private record Part(Path temporary, Path wanted) {}

  private OnnxFile() {}

  /** Where the constants of {@code file} go when they are too large for it: FILE.data. */
  public static Path dataFile(Path file) {
    return file.resolveSibling(file.getFileName() + ".data");
  }

  /**
   * Writes under temporary names, then renames, the data first.
   *
   * @param metadata properties of the model, for whoever serves it
   * @param mostInline bytes of constants above which they go to {@link #dataFile}
   * @return the files written: the model, and its data where there is such a file
   * @throws InputException when a file cannot be written; nothing is left behind then
   */
  public static List<Path> write(
      OnnxGraph graph, Path file, Map<String, String> metadata, long mostInline) {
    long bytes = graph.initializers().stream().mapToLong(OnnxGraph.Initializer::bytes).sum();
    boolean external = bytes > mostInline;
    List<Part> parts = new ArrayList<>();
    try {
      Files.createDirectories(file.toAbsolutePath().getParent());
      List<TensorProto> headers;
      if (external) {
        Part data = part(dataFile(file));
        parts.add(data);
        headers = writeData(graph, data);
      } else {
        headers = graph.initializers().stream().map(i -> header(i).build()).toList();
      }
      Part model = part(file);
      parts.add(model);
      try (OutputStream out =
          new BufferedOutputStream(Files.newOutputStream(model.temporary), 1 << 16)) {
        writeModel(graph, headers, metadata, out);
      }
      for (Part p : parts) {
        Files.move(
            p.temporary,
            p.wanted,
            StandardCopyOption.ATOMIC_MOVE,
            StandardCopyOption.REPLACE_EXISTING);
      }
    } catch (IOException e) {
      throw new InputException(
          "cannot write "
              + file
              + ": "
              + Reason.of(e)
              + "; free some space or choose another folder",
          e);
    } finally {
      for (Part p : parts) {
        remove(p.temporary);
      }
    }
    List<Path> written = new ArrayList<>(List.of(file));
    if (external) {
      written.add(dataFile(file));
    }
    return written;
  }

  private static Part part(Path wanted) {
    return new Part(wanted.resolveSibling(wanted.getFileName() + ".partial"), wanted);
  }

  private static void remove(Path temporary) {
    try {
      Files.deleteIfExists(temporary);
    } catch (IOException e) {
      throw new InputException("cannot remove " + temporary + ": " + Reason.of(e), e);
    }
  }

  private static TensorProto.Builder header(OnnxGraph.Initializer i) {
    TensorProto.Builder made =
        TensorProto.newBuilder().setName(i.name()).setDataType(OnnxGraph.type(i.dtype()));
    for (int d : i.shape().dims()) {
      made.addDims(d);
    }
    return made;
  }

  /** Writes the large constants; the headers of all say where each lies. */
  private static List<TensorProto> writeData(OnnxGraph graph, Part part) throws IOException {
    List<TensorProto> headers = new ArrayList<>();
    String location = part.wanted.getFileName().toString();
    try (OutputStream out =
        new BufferedOutputStream(Files.newOutputStream(part.temporary), 1 << 16)) {
      long at = 0;
      for (OnnxGraph.Initializer i : graph.initializers()) {
        TensorProto.Builder header = header(i);
        if (i.bytes() >= SMALL) {
          int gap = (int) (-at & (ALIGNMENT - 1));
          out.write(new byte[gap]);
          at += gap;
          copy(bytes(i), out);
          header
              .setDataLocation(TensorProto.DataLocation.EXTERNAL)
              .addExternalData(entry("location", location))
              .addExternalData(entry("offset", Long.toString(at)))
              .addExternalData(entry("length", Long.toString(i.bytes())));
          at += i.bytes();
        }
        headers.add(header.build());
      }
    }
    return headers;
  }

  private static StringStringEntryProto entry(String key, String value) {
    return StringStringEntryProto.newBuilder().setKey(key).setValue(value).build();
  }

  /**
   * ModelProto's fields, its graph written field by field: first the nodes, then each constant's
   * header with its bytes as the last field.
   */
  private static void writeModel(
      OnnxGraph graph, List<TensorProto> headers, Map<String, String> metadata, OutputStream to)
      throws IOException {
    ModelProto.Builder model =
        ModelProto.newBuilder()
            .setIrVersion(irVersion(graph.opset()))
            .setProducerName("deixis")
            .addOpsetImport(OperatorSetIdProto.newBuilder().setVersion(graph.opset()));
    metadata.forEach((key, value) -> model.addMetadataProps(entry(key, value)));
    GraphProto skeleton = graph.skeleton();
    List<OnnxGraph.Initializer> constants = graph.initializers();
    long size = skeleton.getSerializedSize();
    for (int i = 0; i < headers.size(); i++) {
      long tensor = tensorSize(headers.get(i), constants.get(i));
      size +=
          CodedOutputStream.computeTagSize(GraphProto.INITIALIZER_FIELD_NUMBER)
              + CodedOutputStream.computeUInt64SizeNoTag(tensor)
              + tensor;
    }
    CodedOutputStream out = CodedOutputStream.newInstance(to);
    model.build().writeTo(out);
    open(out, ModelProto.GRAPH_FIELD_NUMBER, size);
    skeleton.writeTo(out);
    for (int i = 0; i < headers.size(); i++) {
      TensorProto header = headers.get(i);
      OnnxGraph.Initializer constant = constants.get(i);
      open(out, GraphProto.INITIALIZER_FIELD_NUMBER, tensorSize(header, constant));
      header.writeTo(out);
      if (inline(header)) {
        open(out, TensorProto.RAW_DATA_FIELD_NUMBER, constant.bytes());
        out.flush();
        copy(bytes(constant), to);
      }
    }
    out.flush();
  }

  private static boolean inline(TensorProto header) {
    return header.getDataLocation() != TensorProto.DataLocation.EXTERNAL;
  }

  private static long tensorSize(TensorProto header, OnnxGraph.Initializer constant) {
    if (!inline(header)) {
      return header.getSerializedSize();
    }
    return header.getSerializedSize()
        + CodedOutputStream.computeTagSize(TensorProto.RAW_DATA_FIELD_NUMBER)
        + CodedOutputStream.computeUInt64SizeNoTag(constant.bytes())
        + constant.bytes();
  }

  private static void open(CodedOutputStream out, int field, long size) throws IOException {
    out.writeTag(field, WireFormat.WIRETYPE_LENGTH_DELIMITED);
    out.writeUInt64NoTag(size);
  }

  private static int irVersion(int opset) {
    Integer version = IR.get(opset);
    if (version == null) {
      throw new IllegalArgumentException("no IR version is known for opset " + opset);
    }
    return version;
  }

  private static ByteBuffer bytes(OnnxGraph.Initializer i) {
    ByteBuffer data = i.data().get();
    if (data.remaining() != i.bytes()) {
      throw new IllegalStateException(
          i.name() + ": " + data.remaining() + " bytes for " + i.shape() + " " + i.dtype());
    }
    return data;
  }

  private static void copy(ByteBuffer from, OutputStream to) throws IOException {
    byte[] block = new byte[Math.min(from.remaining(), 1 << 16)];
    while (from.hasRemaining()) {
      int n = Math.min(block.length, from.remaining());
      from.get(block, 0, n);
      to.write(block, 0, n);
    }
  }
}
